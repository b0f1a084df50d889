package greenapi

import (
	"fmt"
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
			if got := strings.Contains(e.Logs.All(), "requests that no route matches are answered 200 by Caddy"); got != test.warns {
				t.Errorf("warns: %t", got)
			}
		})
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
