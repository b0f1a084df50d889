package greenapi

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/greenapi-community/caddy-green-api/internal/tell"
)

// TestDeployMetrics: the dashboard and the alert rules ask for metrics that there are.
func TestDeployMetrics(t *testing.T) {
	known := make(map[string]bool)
	registry := prometheus.NewRegistry()
	if err := newOperator(tell.DefaultTimes()).desk.Register(registry, true); err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	registry.Describe(descs)
	close(descs)
	for desc := range descs {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(desc.String())[1]
		known[name], known[name+"_bucket"] = true, true
	}
	for _, file := range []string{"deploy/grafana/green_api.json", "deploy/prometheus/green_api.rules.yml", "deploy/prometheus/green_api.test.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", file)
		}
		used := regexp.MustCompile(`caddy_[a-z_]+`).FindAllString(string(text), -1)
		for _, name := range used {
			if !known[name] {
				t.Errorf("%s: no metric %s", file, name)
			}
		}
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
	}
}
