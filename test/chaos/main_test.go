// Package chaos lets everything fail that can, under a faithful sender, and counts: what is answered 200
// must be with a handler or in the quarantine, whatever happens.
package chaos

import (
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }
