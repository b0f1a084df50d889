package nats

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadme: the Caddyfile of README.md loads, and what it says of the queue opens on three servers that want its token.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a cluster")
	}
	t.Setenv("NATS_TOKEN", "invented-secret")
	t.Setenv("GREEN_API_TOKEN", "invented-token")
	servers := startServers(t, 3, "authorization { token: $NATS_TOKEN }")
	fences := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	if len(fences) != 1 {
		t.Fatalf("%d Caddyfiles", len(fences))
	}
	text := fences[0][1]
	if formatted := caddyfile.Format([]byte(text)); string(formatted) != text {
		t.Errorf("not as `caddy fmt` writes it:\n%s", formatted)
	}
	for i, s := range servers {
		address := fmt.Sprintf("nats://n%d:4222", i+1)
		if !strings.Contains(text, address) {
			t.Errorf("it lacks %s", address)
		}
		text = strings.Replace(text, address, s.url, 1)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(adapted, &config); err != nil {
		t.Fatal(err)
	}
	config.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}}}}
	if err := caddy.Validate(&config); err != nil {
		t.Fatal(err)
	}
	var parts struct {
		Apps struct {
			GreenAPI struct {
				Queue struct {
					Engine string `json:"engine"`
					Queue
				} `json:"queue"`
			} `json:"green_api"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(adapted, &parts); err != nil {
		t.Fatal(err)
	}
	q := &parts.Apps.GreenAPI.Queue.Queue
	if engine := parts.Apps.GreenAPI.Queue.Engine; engine != "nats" {
		t.Errorf("engine %s", engine)
	}
	if err := q.provision(); err != nil {
		t.Fatal(err)
	}
	s, err := q.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	put(t, s.(*Store), "1101000001", 0)
}

// TestReadmeOptions: the table has each option, and the default that the program uses.
func TestReadmeOptions(t *testing.T) {
	q := Queue{Servers: []string{"n1:4222"}}
	if err := q.provision(); err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{
		"stream": q.Stream, "replicas": fmt.Sprint(q.Replicas), "partitions": fmt.Sprint(q.Partitions),
		"max_size": strings.ReplaceAll(humanize.IBytes(uint64(q.MaxSize)), ".0 ", ""), "max_per_instance": fmt.Sprint(q.MaxPerInstance), "grace_period": time.Duration(q.GracePeriod).String(), //nolint:gosec // above 0
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.*?) \\|").FindAllStringSubmatch(readme(t), -1) {
		option, says := row[1], strings.Trim(row[2], "`")
		if strings.HasPrefix(option, "caddy_") {
			continue
		}
		got = append(got, option)
		if want, known := defaults[option]; known && says != want {
			t.Errorf("%s: the default is %s, not %s", option, want, says)
		}
		err := new(Queue).UnmarshalCaddyfile(caddyfile.NewTestDispenser("nats {\n" + option + " {\n}\n}"))
		if err != nil && strings.Contains(err.Error(), "unknown option") {
			t.Error(err)
		}
	}
	want := optionsOf(t)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the table has %v, want %v", got, want)
	}
}

// optionsOf returns the options of the syntax above UnmarshalCaddyfile.
func optionsOf(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("module.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^//\t    ([a-z_]+) +[<{]`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, line[1])
	}
	slices.Sort(names)
	return names
}
