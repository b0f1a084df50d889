package greenapi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// FuzzCaddyfile takes anything for the inside of a green_api block. What can be read loads, or does
// not for a reason that names green_api; and no message shows the token.
func FuzzCaddyfile(f *testing.F) {
	goldens, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil {
		f.Fatal(err)
	}
	for _, golden := range goldens {
		text, err := os.ReadFile(golden)
		if err != nil {
			f.Fatal(err)
		}
		config, _, _ := strings.Cut(string(text), goldenSeparator)
		if _, inside, found := strings.Cut(config, "green_api {\n"); found && !strings.Contains(inside, "\n}\n\n") {
			if end := strings.LastIndex(strings.TrimRight(inside, "}\n\t "), "\n"); end > 0 {
				f.Add(inside[:end])
			}
		}
	}
	for _, seed := range []string{
		"auth off", "auth {\ntoken x\n}\nip_filter {\nallow 10.0.0.1\n}", "auth {\ninstance 1 {env.HOME}\n}", "auth off\nreverse_proxy h:1 {\nlb_policy green_api chat\n}",
		"auth off\nvalidate {\nmax_body_size 1MiB\ndrop a.b\nunknown_type pass\n}", "auth off\ndeliver {\ntimeout 1s\ndead_letter off\ndeduplicate 24h\n}",
		"auth off\nip_filter {\nsource static 10.0.0.0/8\nunlisted pass\nreport_only\n}", "name x\nlog_body\nauth {\ntoken \"Basic x\"\nreport_only\n}", "auth off\nvalidate {\nmax_body_size 9223372036854775807\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, inside string) {
		if escapes(inside) {
			return
		}
		text, err := edgetest.Adapt("http://:8080 {\ngreen_api {\n" + inside + "\n}\n}\n")
		if err != nil {
			return
		}
		// Caddy's own cannot be asked to stay off the network and the disk.
		for _, word := range []string{`"transport"`, `"dynamic_upstreams"`, `"health_checks"`, `"apps":{"tls"`, `"pki"`} {
			if bytes.Contains(text, []byte(word)) {
				return
			}
		}
		if err := validate(text); err != nil && (!strings.Contains(err.Error(), "green_api") || strings.HasPrefix(err.Error(), "panic")) {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// escapes reports whether a text leaves the block that it is put into, or reads other files.
func escapes(inside string) bool {
	if strings.Contains(inside, "import") || strings.Contains(inside, "{file.") || strings.Contains(inside, "<<") {
		return true
	}
	tokens, err := caddyfile.Tokenize([]byte(inside), "Caddyfile")
	if err != nil {
		return true
	}
	depth := 0
	for _, token := range tokens {
		switch token.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
		if depth < 0 {
			return true
		}
	}
	return depth != 0
}
