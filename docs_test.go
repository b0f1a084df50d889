package greenapi

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestExample has what Caddyfile.example promises to who runs it without reading it.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	if formatted := caddyfile.Format(example); string(formatted) != string(example) {
		t.Errorf("not as `caddy fmt` writes it:\n%s", formatted)
	}
	text, warnings, err := adaptFully(string(example))
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings {
		t.Errorf("warning: %s", warning)
	}
	if err := validate(text); err != nil {
		t.Fatal(err)
	}

	edges := 0
	for name, server := range serversOf(t, text) {
		for _, address := range server.Listen {
			if !isLoopback(address) {
				t.Errorf("%s listens on %s, want loopback only", name, address)
			}
		}
		if !strings.Contains(string(server.Routes), `"handler":"green_api"`) {
			continue
		}
		edges++
		var routes []struct {
			Match  []json.RawMessage `json:"match"`
			Handle []struct {
				Handler string `json:"handler"`
				Status  any    `json:"status_code"`
			} `json:"handle"`
		}
		if err := json.Unmarshal(server.Routes, &routes); err != nil {
			t.Fatal(err)
		}
		last := routes[len(routes)-1]
		if len(last.Match) > 0 || len(last.Handle) != 1 || last.Handle[0].Handler != "static_response" || last.Handle[0].Status != 404.0 {
			t.Errorf("%s does not end in `respond 404`: %+v", name, last)
		}
	}
	if edges == 0 {
		t.Error("no green_api in it")
	}
}

type exampleServer struct {
	Listen []string        `json:"listen"`
	Routes json.RawMessage `json:"routes"`
}

func serversOf(t *testing.T, config []byte) map[string]exampleServer {
	t.Helper()
	var parsed struct {
		Apps struct {
			HTTP struct {
				Servers map[string]exampleServer `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed.Apps.HTTP.Servers
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// A fence is a block of code in a document.
type fence struct {
	language string
	line     int // of its first line, from 1
	text     string
}

// fencesOf returns the blocks of code of a document, also those inside lists.
func fencesOf(document string) []fence {
	var fences []fence
	var open *fence
	var indent string
	number := 0
	for line := range strings.Lines(document) {
		number++
		trimmed := strings.TrimLeft(line, " \t")
		mark, isMark := strings.CutPrefix(trimmed, "```")
		switch {
		case open == nil && isMark:
			open, indent = &fence{language: strings.TrimSpace(mark), line: number + 1}, strings.TrimSuffix(line, trimmed)
		case open != nil && isMark:
			fences = append(fences, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent)
		}
	}
	if open != nil {
		open.language = "unclosed"
		fences = append(fences, *open)
	}
	return fences
}

func TestFencesOf(t *testing.T) {
	got := fencesOf("text\n```json\n{}\n```\n1. item\n\n   ```caddyfile\n   a {\n   \tb\n   }\n   ```\n```\nunclosed\n")
	want := []fence{{"json", 3, "{}\n"}, {"caddyfile", 8, "a {\n\tb\n}\n"}, {"unclosed", 13, "unclosed\n"}}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

var (
	envOfDocs  = regexp.MustCompile(`\{(?:env\.|\$)([A-Za-z0-9_]+)`)
	fileOfDocs = regexp.MustCompile(`(?:^|[\s"]|\{file\.)(/[^\s"{}]*)`)
)

// TestDocs takes what the documents show through Caddy. A Caddyfile whose first line is `# part` is
// the inside of a site.
func TestDocs(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		if errors.Is(err, fs.ErrNotExist) {
			t.Logf("%s is not there", document)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range fencesOf(string(text)) {
			switch found.language {
			case "json":
				if !json.Valid([]byte(found.text)) {
					t.Errorf("%s:%d: no JSON:\n%s", document, found.line, found.text)
				}
			case "caddyfile":
				t.Run(document, func(t *testing.T) {
					for _, name := range envOfDocs.FindAllStringSubmatch(found.text, -1) {
						t.Setenv(name[1], envValue(name[1]))
					}
					if err := tryFence(found.text); err != nil {
						t.Errorf("line %d: %v", found.line, err)
					}
				})
			case "unclosed":
				t.Errorf("%s:%d: block of code without an end", document, found.line)
			}
		}
	}
}

// envValue is a value that fits what a variable of the documents is for, by its name.
func envValue(name string) string {
	if strings.Contains(name, "TOKEN") {
		return "demo-token"
	}
	return "127.0.0.1"
}

// tryFence adapts a Caddyfile of a document and provisions it. That a file it names is not on this
// machine is no error.
func tryFence(text string) error {
	if inside, part := strings.CutPrefix(text, "# part\n"); part {
		text = "http://127.0.0.1:8080 {\n" + inside + "}\n"
	}
	config, err := edgetest.Adapt(text)
	if err != nil {
		return err
	}
	err = validate(config)
	if err == nil {
		return nil
	}
	for _, named := range fileOfDocs.FindAllStringSubmatch(text, -1) {
		if _, missing := os.Stat(named[1]); missing != nil && strings.Contains(err.Error(), named[1]) {
			return nil
		}
	}
	return err
}

func TestTryFence(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       string // part of the message, "" for none
	}{
		{"site", "http://:8080 {\ngreen_api {\nauth off\n}\n}\n", ""},
		{"global", "{\ngreen_api {\nquarantine /var/lib/green-api\n}\n}\n", ""},
		{"part", "# part\ngreen_api {\nauth off\n}\n", ""},
		{"part without its mark", "green_api {\nauth off\n}\n", "green_api"},
		{"slip", "# part\ngreen_api {\nauth of\n}\n", "invalid argument of auth"},
		{"does not load", "# part\ngreen_api {\nauth {\ntoken {env.GREEN_API_TEST_UNSET}\n}\n}\n", "is not set or empty"},
		{"directory that is not there", "# part\ngreen_api {\nauth off\nvalidate {\nschemas /nonexistent/schemas\n}\n}\n", ""},
		{"file that is not there", "# part\ngreen_api {\nauth {\ntoken {file./nonexistent/token}\n}\n}\n", ""},
		{
			"file that is not there, and a slip", "# part\ngreen_api {\nauth {\ntoken demo token {file./nonexistent/token}\n}\nip_filter {\nallow 300.1.1.1\n}\n}\n",
			"300.1.1.1",
		},
	} {
		err := tryFence(test.text)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// TestOperations: each reason and each message of level WARN or ERROR is explained to the operator.
func TestOperations(t *testing.T) {
	doc, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := filepath.Glob("internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, inner...)
	messages := regexp.MustCompile(`\.(?:Warn|Error)\("([^"]+)"`)
	reasons := regexp.MustCompile(`(?m)^\t[A-Z]\w*\s*= "([a-z_]+)"$`) // in internal/reason
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "edgetest") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		matches := messages.FindAllSubmatch(source, -1)
		if strings.HasPrefix(file, filepath.Join("internal", "reason")) {
			matches = append(matches, reasons.FindAllSubmatch(source, -1)...)
		}
		found += len(matches)
		for _, match := range matches {
			if !strings.Contains(string(doc), "`"+string(match[1])+"`") {
				t.Errorf("%s: docs/operations.md does not explain %q", file, match[1])
			}
		}
	}
	for _, message := range messagesOf {
		if !strings.Contains(string(doc), "`"+message+"`") {
			t.Errorf("docs/operations.md does not explain %q", message)
		}
	}
	if found < 60 {
		t.Errorf("found only %d", found)
	}
}

var messagesOf = []string{"notification delivered", "notification dropped", "notification quarantined", "request refused", "notification failed"}
