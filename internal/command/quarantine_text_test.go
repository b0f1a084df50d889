package command_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestAdminElsewhere: what is no admin API of an edge says so, and where it may be.
func TestAdminElsewhere(t *testing.T) {
	_, bare := edgetest.WithAdmin(t, "")
	if err := caddy.Load([]byte(`{"admin": {"listen": "`+bare+`", "config": {"persist": false}}}`), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	other := edgetest.NewUpstream(t, 404, nil)
	for _, test := range []struct{ name, address, want string }{
		{"nobody listens", "127.0.0.1:" + edgetest.FreePort(t), "connection refused"},
		{"not Caddy", other.Address, "it answers with status 404, and is no admin API of a Caddy with green_api"},
		{"a Caddy without an edge", bare, api.ErrNoEdge.Error()},
	} {
		for _, args := range [][]string{{"list"}, {"show", "x"}, {"delete", "--all"}, {"replay", "--all"}, {"export"}} {
			_, stderr, code := operate(t, test.address, args...)
			if code != 2 || !strings.Contains(stderr, test.want) || !strings.Contains(stderr, test.address) ||
				!strings.Contains(stderr, "if it is elsewhere, say so with --config FILE") || strings.Contains(stderr, `{"error"`) {
				t.Errorf("%s, %v: exit code %d, %q", test.name, args, code, stderr)
			}
		}
	}
}

// TestQuarantineText: a line of text says what the fault was, also where that is in the header or in what
// handlers said.
func TestQuarantineText(t *testing.T) {
	sick := edgetest.NewUpstream(t, 422, nil)
	gone := "127.0.0.1:" + edgetest.FreePort(t)
	config, admin := edgetest.WithAdmin(t, edgetest.SiteWith("", "green_api /sick {\nname sick\n"+edgetest.Loopback+"reverse_proxy "+sick.Address+"\n}\n"+
		"green_api /gone {\nname gone\n"+edgetest.Loopback+"deliver {\ntimeout 300ms\nattempt_timeout 200ms\n}\nreverse_proxy "+gone+"\n}\nrespond 404\n"))
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine"), Logs: edgetest.NewLogBuffer()}
	ids := putAll(t, e.Dir,
		quarantine.Entry{Name: "sick", Reason: reason.Encoding, Header: map[string][]string{"Content-Type": {"text/plain", "application/json"}}, Body: []byte("{}")},
		quarantine.Entry{Name: "sick", Reason: reason.Undeliverable, Body: []byte("{}"), Answers: []quarantine.Answer{
			{Handler: "10.0.0.1:80", Status: 400}, {Handler: "10.0.0.2:80", Status: 422, Text: "no such chat"}, {Handler: "10.0.0.3:80", Error: "connection refused"},
		}},
		quarantine.Entry{Name: "gone", Reason: reason.Schema, Body: []byte("{}")},
	)
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Kept() })
	for _, test := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"list", "--reason", "encoding"}, 0, []string{"2 bytes  Content-Type: text/plain and application/json\n"}},
		{[]string{"list", "--reason", "undeliverable"}, 0, []string{"2 bytes  10.0.0.3:80: connection refused\n"}},
		{[]string{"show", ids[1]}, 0, []string{"    10.0.0.1:80: 400\n", "    10.0.0.2:80: 422 no such chat\n", "    10.0.0.3:80: connection refused\n"}},
		{[]string{"replay", ids[1]}, 1, []string{"handler_refused  " + sick.Address + ": 422\n"}},
		{[]string{"replay", ids[1], "--format", "json"}, 1, []string{`"reason":"handler_refused","error":"` + sick.Address + `: 422"`}},
		{[]string{"replay", ids[2]}, 1, []string{"not_now  " + gone + ": ", "connection refused"}},
	} {
		stdout, stderr, code := operate(t, admin, test.args...)
		if code != test.code {
			t.Errorf("%v: exit code %d, %q", test.args, code, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: lacks %q: %q", test.args, want, stdout)
			}
		}
	}
}
