package adopt

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// queueBlock is the part of the page's config that the first experiment leaves out.
const queueBlock = "\t\tqueue {\n\t\t\tkey chat\n\t\t}\n"

// queueConfig is the first config of docs/queue.md, with an admin API, a directory and an upstream of its own.
func queueConfig(t *testing.T, admin, upstream string) string {
	t.Helper()
	for _, found := range fences.FindAllStringSubmatch(page(t, "docs/queue.md"), -1) {
		if found[2] != "caddyfile" {
			continue
		}
		config := strings.NewReplacer("http://:8080", "http://:PORT", "127.0.0.1:9001", upstream).Replace(found[3])
		if !strings.Contains(config, queueBlock) || !strings.Contains(config, upstream) {
			t.Fatalf("the page begins with another config:\n%s", config)
		}
		return "{\n\tadmin " + admin + "\n\tpersist_config off\n\tgreen_api {\n\t\tquarantine DIR\n\t}\n}\n" + config
	}
	t.Fatal("docs/queue.md has no config")
	return ""
}

// shapeOf returns a text without numbers, times, ids of lanes and widths of columns.
func shapeOf(text string) string {
	for _, rule := range []struct{ pattern, with string }{
		{`\b[0-9a-f]{12}\b`, "LANE"},
		{`\b(\d+m)?[\d.]+(m|µ)?s\b`, "TIME"},
		{`\d+@c\.us`, "CHAT"},
		{`[\d.]+ (KiB|B)\b`, "SIZE"},
		{`\d+`, "N"},
		{` +`, " "},
		{`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(rule.pattern).ReplaceAllString(text, rule.with)
	}
	return strings.TrimSpace(text)
}

// textsOf returns the blocks of text of docs/queue.md.
func textsOf(t *testing.T) (texts []string) {
	t.Helper()
	for _, found := range fences.FindAllStringSubmatch(page(t, "docs/queue.md"), -1) {
		if found[2] == "text" {
			texts = append(texts, found[3])
		}
	}
	if len(texts) != 3 {
		t.Fatalf("docs/queue.md has %d blocks of text, want those of two experiments and a list", len(texts))
	}
	return texts
}

// TestQueueExperiment: what docs/queue.md begins with comes out as it says, without a queue and with one.
func TestQueueExperiment(t *testing.T) {
	edgetest.Proof(t)
	const delay = 300 * time.Millisecond
	handler := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) { time.Sleep(delay) })
	for i, name := range []string{"without", "with"} {
		t.Run(name, func(t *testing.T) {
			admin := "127.0.0.1:" + edgetest.FreePort(t)
			config := queueConfig(t, admin, handler.Address)
			if name == "without" {
				config = strings.Replace(config, queueBlock, "", 1)
			}
			e := run(t, config)
			out, problem, code := edgetest.RunCaddy(t, ".", "", "green-api", "send", "http://127.0.0.1:"+e.port+"/green-api/webhook", "--token", "demo-token",
				"--type", "incomingMessageReceived.textMessage", "--count", "20", "--chats", "20", "--admin", admin)
			if code != 0 {
				t.Fatalf("%s%s", out, problem)
			}
			if got, want := shapeOf(out), shapeOf(textsOf(t)[i]); got != want {
				t.Errorf("it prints\n%s\nand the page says\n%s", got, want)
			}
			answered, handled := lastTime(t, out, "p50 "), lastTime(t, out, "handled: ")
			if name == "without" && (answered < delay || handled < 20*delay) || name == "with" && (answered > delay || handled > 5*delay) {
				t.Errorf("%s queue: answered within %s, handled within %s", name, answered, handled)
			}
		})
	}
}

// lastTime returns the duration behind the last occurrence of a word.
func lastTime(t *testing.T, text, word string) time.Duration {
	t.Helper()
	rest := text[strings.LastIndex(text, word)+len(word):]
	rest = rest[:max(0, strings.IndexAny(rest, ",\n"))]
	d, err := time.ParseDuration(rest)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

// TestQueueOrders: the commands of docs/queue.md print what it says.
func TestQueueOrders(t *testing.T) {
	edgetest.Proof(t)
	var well atomic.Bool
	handler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !well.Load() && strings.Contains(string(body), `"70000000003@c.us"`) {
			w.WriteHeader(500)
		}
	}))
	t.Cleanup(handler.Close)
	admin := "127.0.0.1:" + edgetest.FreePort(t)
	config := strings.Replace(queueConfig(t, admin, handler.Listener.Addr().String()), "key chat", "key chat\nretry 30s", 1)
	e := run(t, config)
	out, problem, code := edgetest.RunCaddy(t, ".", "", "green-api", "send", "http://127.0.0.1:"+e.port+"/green-api/webhook", "--token", "demo-token",
		"--type", "incomingMessageReceived.textMessage", "--count", "120", "--chats", "20", "--admin", admin, "--wait", "0s")
	if code != 0 {
		t.Fatalf("%s%s", out, problem)
	}
	order := func(args ...string) string {
		t.Helper()
		out, problem, code := edgetest.RunCaddy(t, ".", "", append(append([]string{"green-api", "queue"}, args...), "--address", admin)...)
		if code != 0 {
			t.Errorf("%q: exit code %d, %s", args, code, problem)
		}
		return out + problem
	}
	var list string
	edgetest.Eventually(t, "one lane is left", func() bool {
		list = order("list")
		return strings.Contains(list, "1 lane,") && strings.Contains(list, "waiting")
	})
	if got, want := shapeOf(list), shapeOf(textsOf(t)[2]); got != want {
		t.Errorf("list prints\n%s\nand the page says\n%s", got, want)
	}
	lane := regexp.MustCompile(`(?m)^[0-9a-f]{12}`).FindString(list)
	if out := order("show", lane); strings.Count(out, "70000000003@c.us") != 1+3 {
		t.Errorf("show prints\n%s", out)
	}

	prints := make(map[string]string) // by the command's first word, from the page
	for _, row := range regexp.MustCompile("(?m)^\\| `caddy green-api queue (\\w+)[^`]*` \\| `([^`]+)`").FindAllStringSubmatch(page(t, "docs/queue.md"), -1) {
		prints[row[1]] = row[2]
	}
	says := func(args ...string) {
		t.Helper()
		if out := order(args...); !strings.Contains(shapeOf(out), shapeOf(prints[args[0]])) || prints[args[0]] == "" {
			t.Errorf("%q prints\n%s\nand the page says\n%s", args, out, prints[args[0]])
		}
	}
	says("retry", lane)
	edgetest.Eventually(t, "it waits again", func() bool { return strings.Contains(order("list"), "waiting  2") })
	says("skip", lane)
	says("pause")
	says("resume")
	if err := os.WriteFile(e.file, []byte(strings.NewReplacer("webhook* {", "webhook* {\nname bots").Replace(readFile(t, e.file))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, problem, code := edgetest.RunCaddy(t, ".", "", "reload", "--config", e.file, "--address", admin); code != 0 {
		t.Fatal(problem)
	}
	edgetest.Eventually(t, "the block is gone", func() bool { return strings.Contains(order("list"), "no_handler") })
	well.Store(true)
	says("move", "--from", "default", "--to", "bots")
	says("drain")
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestQueuePage: docs/queue.md and README.md explain each option of a queue, and name no command that there is not.
func TestQueuePage(t *testing.T) {
	text, readme := page(t, "docs/queue.md"), page(t, "README.md")
	_, err := edgetest.Adapt("http://:8080 {\ngreen_api {\nauth off\nqueue {\nnothing\n}\n}\n}\n")
	if err == nil {
		t.Fatal("an unknown option was taken")
	}
	_, wanted, _ := strings.Cut(err.Error(), "want ")
	wanted, _, _ = strings.Cut(wanted, ", at")
	options := regexp.MustCompile(`[a-z_]+`).FindAllString(strings.ReplaceAll(wanted, " or ", ", "), -1)
	if len(options) < 6 {
		t.Errorf("found only %q in %v", options, err)
	}
	for _, option := range append(options, "bbolt", "max_size") {
		for name, text := range map[string]string{"docs/queue.md": text, "README.md": readme} {
			if !strings.Contains(text, "| `queue "+option) {
				t.Errorf("%s does not explain %s", name, option)
			}
		}
	}
	commands := regexp.MustCompile("caddy green-api queue ([a-z]+)").FindAllStringSubmatch(text, -1)
	if len(commands) < 8 {
		t.Errorf("found only %d commands", len(commands))
	}
	for _, command := range commands {
		out, _, code := edgetest.RunCaddy(t, ".", "", "green-api", "queue", command[1], "--help")
		if code != 0 || !strings.Contains(out, "caddy green-api queue "+command[1]) {
			t.Errorf("there is no command queue %s", command[1])
		}
	}
}
