package greenapi

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
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

// TestDocs takes what the documents show through Caddy. A Caddyfile whose first line is `# part of a site`, or
// `# part`, is the inside of a site.
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
		return "demo-token-of-some-length"
	}
	return "127.0.0.1"
}

// tryFence adapts a Caddyfile of a document and provisions it. That a file it names is not on this
// machine is no error.
func tryFence(text string) error {
	if first, inside, _ := strings.Cut(text, "\n"); first == "# part" || first == "# part of a site" {
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

var (
	linkOfDocs = regexp.MustCompile(`\]\(([^)\s]+)\)|\b(?:src|srcset|href)="([^"]+)"`)
	inlineCode = regexp.MustCompile("`[^`\n]*`")
)

// TestLinks: what a document links to or shows, beside the web, is there, and so is the heading that it names.
func TestLinks(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, "README.md", "README.ru.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
	found := 0
	for _, document := range documents {
		for _, match := range linkOfDocs.FindAllStringSubmatch(inlineCode.ReplaceAllString(proseOf(t, document), ""), -1) {
			link := match[1] + match[2]
			if strings.Contains(link, ":") {
				continue
			}
			found++
			path, heading, _ := strings.Cut(link, "#")
			target := document
			if path != "" {
				target = filepath.Join(filepath.Dir(document), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s is not there", document, link)
			} else if heading != "" && !slices.Contains(headingsOf(proseOf(t, target)), heading) {
				t.Errorf("%s: %s has no such heading", document, link)
			}
		}
	}
	if found < 100 {
		t.Errorf("found only %d", found)
	}
}

// proseOf returns a document without its blocks of code.
func proseOf(t *testing.T, document string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	prose := string(text)
	for _, code := range fencesOf(prose) {
		prose = strings.Replace(prose, code.text, "", 1)
	}
	return prose
}

// headingsOf returns what the headings of a document are called in links, as GitHub makes it of their text.
func headingsOf(prose string) []string {
	var names []string
	for line := range strings.Lines(prose) {
		title, isHeading := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !isHeading || !strings.HasPrefix(line, "#") {
			continue
		}
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title)))
	}
	return names
}

func TestHeadingsOf(t *testing.T) {
	got := headingsOf("# `Caddy`, its files_\ntext # none\n#none\n### What's new - 2\n## Настройки\n")
	if want := []string{"caddy-its-files_", "whats-new---2", "настройки"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

var (
	darkTheme   = regexp.MustCompile(`(?s)@media \(prefers-color-scheme: dark\) \{(.*?\})\s*\}`)
	styleRule   = regexp.MustCompile(`([^{}]+)\{([^{}]*)\}`)
	styleColour = regexp.MustCompile(`(fill|stroke):\s*(#[0-9a-f]{6})`)
)

// coloursOf returns the colours of a style sheet by selector and property.
func coloursOf(style string) map[string]string {
	colours := make(map[string]string)
	for _, rule := range styleRule.FindAllStringSubmatch(style, -1) {
		for _, colour := range styleColour.FindAllStringSubmatch(rule[2], -1) {
			colours[strings.TrimSpace(rule[1])+" "+colour[1]] = colour[2]
		}
	}
	return colours
}

// TestPictures: the drawings are small, say in words what they show, and have each colour in GitHub's light
// and dark theme.
func TestPictures(t *testing.T) {
	pictures, err := filepath.Glob("docs/*.svg")
	if err != nil || len(pictures) == 0 {
		t.Fatal("no pictures", err)
	}
	for _, picture := range pictures {
		text, err := os.ReadFile(picture)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 8<<10 {
			t.Errorf("%s: %d bytes, want at most 8 KiB", picture, len(text))
		}
		words := elementsOf(t, picture, string(text))
		if len(words["title"]) < 10 || len(words["desc"]) < 100 {
			t.Errorf("%s: title %q, desc %q; want what the picture says", picture, words["title"], words["desc"])
		}
		dark := darkTheme.FindStringSubmatch(words["style"])
		if dark == nil {
			t.Errorf("%s: no dark theme", picture)
			continue
		}
		inLight, inDark := coloursOf(strings.Replace(words["style"], dark[0], "", 1)), coloursOf(dark[1])
		light, both := slices.Sorted(maps.Keys(inLight)), slices.Sorted(maps.Keys(inDark))
		if len(light) < 5 || !slices.Equal(light, both) {
			t.Errorf("%s: colours %q in light, %q in dark", picture, light, both)
		}
		for name, colour := range inLight {
			if inDark[name] == colour {
				t.Errorf("%s: %s is %s in both themes", picture, name, colour)
			}
		}
	}
}

// elementsOf parses a drawing and returns the texts of its elements by their names. All that is drawn has a
// class of the style sheet, and no colour of its own.
func elementsOf(t *testing.T, picture, text string) map[string]string {
	t.Helper()
	words := make(map[string]string)
	var open []string
	for decoder := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return words
		}
		if err != nil {
			t.Fatalf("%s: %v", picture, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			open = append(open, token.Name.Local)
			class := ""
			for _, attribute := range token.Attr {
				switch attribute.Name.Local {
				case "class":
					class = attribute.Value
				case "fill", "stroke", "color", "style":
					t.Errorf("%s: %s has a %s of its own", picture, token.Name.Local, attribute.Name.Local)
				}
			}
			for name := range strings.FieldsSeq(class) {
				if !strings.Contains(words["style"], "."+name+" {") {
					t.Errorf("%s: no rule for the class %s", picture, name)
				}
			}
			if drawn := token.Name.Local; class == "" && (drawn == "rect" || drawn == "path") {
				t.Errorf("%s: a %s without a class", picture, drawn)
			}
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				words[open[len(open)-1]] += string(token)
			}
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

// TestOutcomesPage: each reason with which a posted notification can end is in the table.
func TestOutcomesPage(t *testing.T) {
	page, err := os.ReadFile("docs/outcomes.md")
	if err != nil {
		t.Fatal(err)
	}
	ends := slices.Concat(reason.Kept(), []reason.Reason{
		reason.IPNotAllowed, reason.UnlistedSender, reason.ProxyNotStrict, reason.NoToken, reason.BadToken, reason.InstanceNotAllowed,
		reason.EarlyData, reason.Method, reason.Aborted, reason.Unwanted, reason.NotNow, reason.BrokenOff, reason.AttemptTimeout,
		reason.HandlerError, reason.Misrouted, reason.HandlerRefused, reason.NoHandler, reason.Duplicate, reason.Quarantine,
		reason.QueueFull, reason.InstanceFull, reason.Draining, reason.QueueUnavailable,
	})
	for _, end := range ends {
		if !strings.Contains(string(page), "`"+string(end)+"`") {
			t.Errorf("docs/outcomes.md lacks %s", end)
		}
	}
}

var messagesOf = []string{"notification queued", "notification delivered", "notification dropped", "notification quarantined", "request refused", "notification failed"}

// TestDeployMetrics: the dashboard and the alert rules ask for metrics that there are.
func TestDeployMetrics(t *testing.T) {
	known := make(map[string]bool)
	registry := prometheus.NewRegistry()
	if err := newOperator(tell.DefaultTimes()).desk.Register(registry, true, true); err != nil {
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
