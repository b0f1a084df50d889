package edgetest

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// WithAdmin returns the config with an admin API, and the API's address.
func WithAdmin(t *testing.T, config string) (string, string) {
	t.Helper()
	address := "127.0.0.1:" + FreePort(t)
	return strings.Replace(config, "admin off", "admin "+address, 1), address
}

// Site returns a config that listens on PORT and has a green_api block with this content. PORT, DIR and
// TOKEN are replaced at load.
func Site(block string) string {
	return SiteWith("", "green_api /green-api/webhook* {\n"+block+"\n}\nrespond 404\n")
}

func SiteWith(global, body string) string {
	return `{
	admin off
	persist_config off
	auto_https off
	log {
		output test_buffer
		format json
		level DEBUG
	}
	green_api {
		quarantine DIR
	}
	` + global + `
}
http://:PORT {
	bind 127.0.0.1
	` + body + `
}
`
}

// Loopback begins a block to which this machine may send.
const Loopback = "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\n}\n"

func Adapt(config string) ([]byte, error) {
	text, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	return text, err
}

// Global adds an option to the global options of a config.
func Global(option, config string) string {
	return strings.Replace(config, "\tpersist_config off\n", "\tpersist_config off\n"+option, 1)
}
