// Package traps falls into the traps that servers of this kind have fallen into: each test fails if our defence
// is taken away.
package traps

import (
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }
