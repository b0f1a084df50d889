package greenapi

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestEmpty200 has sites of which some answer 200 to what no route matches, and one warns.
func TestEmpty200(t *testing.T) {
	block := "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name  string
		sites string
		warns bool
	}{
		{"respond 404", "http://:PORT {\n" + block + "respond 404\n}\n", false},
		{"nothing at the end", "http://:PORT {\n" + block + "}\n", true},
		{"a header at the end", "http://:PORT {\n" + block + "header X-Edge yes\n}\n", true},
		{"no matcher", "http://:PORT {\ngreen_api {\n" + edgetest.Loopback + "}\n}\n", false},
		{"a host", "http://hooks.test:PORT {\n" + block + "respond 404\n}\n", true},
		{"a host, and all others", "http://hooks.test:PORT {\n" + block + "respond 404\n}\nhttp://:PORT {\nrespond 404\n}\n", false},
		{"an address that is a host name", "http://127.0.0.1:PORT {\n" + block + "respond 404\n}\n", true},
		{"handle blocks", "http://:PORT {\nhandle /green-api/* {\n" + block + "}\nhandle {\nerror 404\n}\n}\n", false},
		{"another server", "http://hooks.test:PORT {\n" + block + "}\nhttp://:PORT {\nrespond 404\n}\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			e := edgetest.Start(t, head+test.sites)
			if got := warnsOfEmpty200(e) > 0; got != test.warns {
				t.Errorf("warns: %t", got)
			}
		})
	}
}

// warnsOfEmpty200 counts the warnings.
func warnsOfEmpty200(e *edgetest.Edge) int {
	return strings.Count(e.Logs.All(), "requests that no route matches are answered 200 by Caddy")
}

// fixLines are the lines that a fix quotes.
var fixLines = regexp.MustCompile(`'([^']*)'`)

// TestEmpty200Fix: the site that the warning asks for loads as it stands, and nothing is left to warn of.
func TestEmpty200Fix(t *testing.T) {
	for name, site := range map[string]string{
		"a port":            "http://hooks.test:PORT {\n",
		"a port of a host":  "http://hooks.test:PORT {\nbind 127.0.0.1\n",
		"a port of several": "http://hooks.test:PORT {\nbind 127.0.0.1 [::1]\n",
	} {
		t.Run(name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			config := head + site + "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\nrespond 404\n}\n"
			e := edgetest.Start(t, config)
			var record struct{ Fix string }
			for line := range strings.Lines(e.Logs.All()) {
				if strings.Contains(line, "requests that no route matches") {
					if err := json.Unmarshal([]byte(line), &record); err != nil {
						t.Fatal(err)
					}
				}
			}
			var lines []string
			for _, quoted := range fixLines.FindAllStringSubmatch(record.Fix, -1) {
				lines = append(lines, quoted[1])
			}
			if len(lines) < 4 || lines[0] != "respond 404" || lines[1] != "http://:"+e.Port+" {" {
				t.Fatalf("fix %q", record.Fix)
			}
			before := warnsOfEmpty200(e)
			if err := e.Load(config + strings.Join(lines[1:], "\n") + "\n"); err != nil {
				t.Fatalf("%v, of %q", err, lines)
			}
			if warnsOfEmpty200(e) > before {
				t.Errorf("still warns with %q", lines)
			}
		})
	}
}

func TestSiteForAll(t *testing.T) {
	for _, test := range []struct {
		listen []string
		tls    bool
		want   string
	}{
		{[]string{":8080"}, false, "http://:8080 {|respond 404|}"},
		{[]string{":443"}, true, "http://, https:// {|respond 404|}"},
		{[]string{":8443"}, true, "https://:8443 {|respond 404|}"},
		{[]string{"[::1]:8080", "127.0.0.1:8080", "127.0.0.1:8081"}, false, "http://:8080, http://:8081 {|bind ::1 127.0.0.1|respond 404|}"},
		{[]string{"unix//run/edge.sock|0222"}, false, "http:// {|bind unix//run/edge.sock|0222|respond 404|}"},
		{[]string{":no-port"}, false, "http:// {|respond 404|}"},
	} {
		lines := siteForAll(test.listen, test.tls)
		if got := strings.Join(lines, "|"); got != test.want {
			t.Errorf("%v: %q, want %q", test.listen, got, test.want)
		}
		config, err := edgetest.Adapt("{\nauto_https off\n}\n" + strings.Join(lines, "\n") + "\n")
		if err != nil || len(config) == 0 {
			t.Errorf("%v: %v", lines, err)
		}
	}
}

// TestHandlerFails: a handler that others stand in for is named once, and when it is well again.
func TestHandlerFails(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	sick, well := edgetest.Script(t, "503", "503", "503", "200"), edgetest.Script(t, "200")
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+sick.Address+" "+well.Address+" {\nlb_policy first\n}"))
	for i := range 3 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
		e.WantRecord("outcome", "delivered", "level", "info", "handler", well.Address, "attempts", "2", "tried", "["+sick.Address+": 503]")
	}
	e.Post(edgetest.Numbered("WELL"))
	logs := e.Logs.All()
	if n := strings.Count(logs, "handler fails, others are asked if there are any"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if !strings.Contains(logs, `"msg":"handler takes notifications again","handler":"`+sick.Address+`"`) {
		t.Error("not told that it is well again")
	}
	edgetest.Eventually(t, "alert", func() bool {
		return strings.Contains(strings.Join(in.All(), ""), "Handler "+sick.Address+": not_now.")
	})
}
