// Package troubleshooting makes the mistakes that docs/troubleshooting.md is about, and holds the first line that each
// of them shows.
package troubleshooting

import (
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }
