// Command caddy is Caddy with its standard modules and the green_api module.
// It is what xcaddy would build, for `go run ./cmd/caddy`.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/greenapi-community/caddy-green-api"
)

func main() {
	collectLater()
	caddycmd.Main()
}
