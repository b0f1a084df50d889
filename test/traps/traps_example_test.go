package traps

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestTrapExampleTimeouts: what the documents show bounds how long a header and a body may take.
func TestTrapExampleTimeouts(t *testing.T) {
	t.Setenv("GREEN_API_TOKEN", "demo-token")
	configs := make(map[string]string)
	example, err := os.ReadFile("../../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	configs["Caddyfile.example"] = string(example)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fence := range strings.Split(string(readme), "```caddyfile\n")[1:] {
		if config, _, _ := strings.Cut(fence, "```"); strings.Contains(config, "admin unix/") {
			configs["README.md"] = config
		}
	}
	if len(configs) != 2 {
		t.Error("README.md shows no config for production")
	}
	for name, config := range configs {
		text, err := edgetest.Adapt(config)
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes     json.RawMessage `json:"routes"`
						ReadBody   time.Duration   `json:"read_timeout"`
						ReadHeader time.Duration   `json:"read_header_timeout"`
					} `json:"servers"`
				} `json:"http"`
			} `json:"apps"`
		}
		if err := json.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		for _, server := range parsed.Apps.HTTP.Servers {
			if !strings.Contains(string(server.Routes), `"handler":"green_api"`) {
				continue
			}
			for _, bound := range []time.Duration{server.ReadBody, server.ReadHeader} {
				if bound <= 0 || bound > time.Minute {
					t.Errorf("%s: header within %s, body within %s; want at most a minute", name, server.ReadHeader, server.ReadBody)
				}
			}
		}
	}
}
