// Package restarts ends an edge and looks at what comes next. On sockets that a supervisor holds, it restarts
// and reloads Caddy under load, and counts the connections that were refused, reset or left without an answer:
// there must be none. Of two edges that share a storage it kills or suspends the one that receives.
package restarts

import (
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }
