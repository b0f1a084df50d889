package edgetest

import "testing"

// BothWays runs a test with notifications that go to the handlers directly, and with notifications that go through
// Caddy's reverse_proxy. option is a line that the test puts into the block of its reverse_proxy.
func BothWays(t *testing.T, test func(t *testing.T, option string)) {
	t.Helper()
	t.Run("directly", func(t *testing.T) { test(t, "") })
	t.Run("through Caddy", func(t *testing.T) {
		Proof(t)
		test(t, "verbose_logs\n")
	})
}
