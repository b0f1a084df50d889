// Package restarts ends and reloads a whole Caddy under load, on sockets that a supervisor holds, and counts
// the connections that were refused, reset or left without an answer: there must be none.
package restarts

import (
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }
