package console

// HashOf is for tests.
var HashOf = hashOf
