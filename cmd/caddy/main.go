// Command caddy is Caddy with its standard modules and the green_api module, as xcaddy would build it. Run
// it with `go run ./cmd/caddy`.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/garbage"
)

func main() {
	garbage.CollectLater()
	caddycmd.Main()
}
