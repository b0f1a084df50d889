// Command caddy is Caddy with its standard modules, the green_api module and its queue in NATS, as xcaddy would build
// it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/garbage"
	_ "github.com/greenapi-community/caddy-green-api/nats"
)

func main() {
	garbage.CollectLater()
	caddycmd.Main()
}
