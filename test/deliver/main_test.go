// Package deliver gives notifications to real handlers, through a whole Caddy: what a handler is sent, what it may
// answer, and what the sender is told. internal/delivery has the tables of the loop, in fake time.
package deliver

import (
	"regexp"
	"strconv"
	"testing"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }

// counting is a site with a block and a page of metrics.
func counting(block string) string {
	return edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+block+"\n}\nmetrics /metrics\n")
}

// waits returns how many notifications wait for a handler. The config is of counting.
func waits(e *edgetest.Edge) int {
	e.T.Helper()
	found := regexp.MustCompile(`(?m)^caddy_green_api_waiting (\d+)$`).FindStringSubmatch(e.Scrape())
	if found == nil {
		e.T.Fatal("no metric of what waits")
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		e.T.Fatal(err)
	}
	return n
}
