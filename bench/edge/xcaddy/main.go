// Command xcaddy is Caddy with the green_api module as xcaddy builds it by default: without the profile that
// cmd/caddy is built with, and with Go's own pace of collecting garbage.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/greenapi-community/caddy-green-api"
)

func main() {
	caddycmd.Main()
}
