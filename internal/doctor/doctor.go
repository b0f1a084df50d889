// Package doctor finds what in a config loses notifications or exposes them, and says how to mend it.
package doctor

import (
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// A Finding is one thing in a config that is hardly meant. Mostly the fields have the fix.
type Finding struct {
	Message string
	Fields  []zap.Field
}

// A Config is what has to be known of a config. Its servers are provisioned.
type Config struct {
	Blocks []Block
	Files  []File
}

// A Block is one green_api block.
type Block struct {
	Name    string
	Handler caddyhttp.MiddlewareHandler // the block, as the routes have it
	Server  *caddyhttp.Server           // nil if that cannot be seen
	Open    bool                        // neither address nor token keeps anybody out
}

// Examine returns what there is to say of a config.
func Examine(c Config) (found []Finding) {
	found = unanswered(c.Blocks)
	for _, b := range c.Blocks {
		found = append(found, onePath(b)...)
	}
	for _, b := range c.Blocks {
		found = append(found, anyone(b)...)
	}
	for _, f := range c.Files {
		found = append(found, usedByOthers(f)...)
	}
	return found
}
