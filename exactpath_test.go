package greenapi

import (
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestExactPath has sites of which some take one form of GREEN-API's URL only, and one warns.
func TestExactPath(t *testing.T) {
	const gate = "{\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name, body string
		warns      string // the path; "" for no warning
	}{
		{"without a slash", "green_api /green-api/webhook " + gate, "/green-api/webhook"},
		{"with a slash", "green_api /green-api/webhook/ " + gate, "/green-api/webhook/"},
		{"upper case", "green_api /Hook " + gate, "/hook"},
		{"a final *", "green_api /green-api/webhook* " + gate, ""},
		{"no matcher", "green_api " + gate, ""},
		{"the root", "green_api / " + gate, ""},
		{"both", "@hook path /hook /hook/\ngreen_api @hook " + gate, ""},
		{"one and a folder", "@hook path /hook /hook/*\ngreen_api @hook " + gate, ""},
		{"one and others", "@hook path /hook /other*\ngreen_api @hook " + gate, "/hook"},
		{"one of a method", "@hook {\nmethod POST\npath /hook\n}\ngreen_api @hook " + gate, "/hook"},
		{"one that differs inside", "@hook path /hook /h*k/\ngreen_api @hook " + gate, ""},
		{"none that is a path", "@hook method POST\ngreen_api @hook " + gate, ""},
		{"handle", "handle /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"handle_path", "handle_path /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"handle with a *", "handle /hook* {\ngreen_api " + gate + "}\n", ""},
		{"exact inside a *", "handle /a/* {\ngreen_api /a/hook " + gate + "}\n", "/a/hook"},
		{"route", "route /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"the other is rewritten", "rewrite /hook/ /hook\ngreen_api /hook " + gate, ""},
		{"another handler's path", "respond /health 200\ngreen_api /hook* " + gate, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			e := edgetest.Start(t, head+"http://:PORT {\n"+test.body+"respond 404\n}\n")
			logs := e.Logs.All()
			if strings.Contains(logs, "a block takes what is below a slash only") {
				t.Error("warns of a folder")
			}
			warned := strings.Count(logs, "a block takes one exact path")
			if test.warns == "" && warned > 0 || test.warns != "" && (warned != 1 || !strings.Contains(logs, `"path":"`+test.warns+`","missing":"`+otherForm(test.warns)+`"`)) {
				t.Errorf("warned %d times, want %q", warned, test.warns)
			}
		})
	}
}

// TestBelowPath has sites of which some take only what is below a slash.
func TestBelowPath(t *testing.T) {
	const gate = "{\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name, body string
		warns      string // the path; "" for no warning
	}{
		{"a * behind the slash", "green_api /green-api/webhook/* " + gate, "/green-api/webhook/*"},
		{"handle", "handle /hook/* {\ngreen_api " + gate + "}\n", "/hook/*"},
		{"handle_path", "handle_path /hook/* {\ngreen_api " + gate + "}\n", "/hook/*"},
		{"route in handle", "handle /hook/* {\nroute {\ngreen_api " + gate + "}\n}\n", "/hook/*"},
		{"and others", "@hook path /hook/* /other*\ngreen_api @hook " + gate, "/hook/*"},
		{"inside a folder", "handle /a/* {\ngreen_api /a/hook/* " + gate + "}\n", "/a/hook/*"},
		{"a folder of more", "handle /a/* {\ngreen_api /a/hook* " + gate + "}\n", ""},
		{"a folder of more, in a route", "handle_path /a/* {\nroute {\ngreen_api /hook* " + gate + "}\n}\n", ""},
		{"the path as well", "@hook path /hook /hook/*\ngreen_api @hook " + gate, ""},
		{"the path is rewritten", "rewrite /hook /hook/\ngreen_api /hook/* " + gate, ""},
		{"the root", "green_api /* " + gate, ""},
		{"more than one *", "green_api /*/hook/* " + gate, ""},
		{"another handler's path", "respond /health/* 200\ngreen_api /hook* " + gate, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			e := edgetest.Start(t, head+"http://:PORT {\n"+test.body+"respond 404\n}\n")
			logs := e.Logs.All()
			warned := strings.Count(logs, "does not reach it")
			without := strings.TrimSuffix(test.warns, "/*")
			if test.warns == "" && warned > 0 || test.warns != "" && (warned != 1 || !strings.Contains(logs,
				`"path":"`+test.warns+`","missing":"`+without+`","fix":"match with a final *, such as `+without+`*"`)) {
				t.Errorf("warned %d times, want %q", warned, test.warns)
			}
		})
	}
}
