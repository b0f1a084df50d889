package greenapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestEntryClipped: however long the sender makes what is kept beside a body, lists of it are short.
func TestEntryClipped(t *testing.T) {
	long := strings.Repeat("\xff", 1<<20)
	r := &http.Request{Host: strings.Repeat("h", 1<<20), RequestURI: "/hook/" + strings.Repeat("%20", 1<<18) + "?" + long, Header: make(http.Header)}
	for range 1000 {
		r.Header.Add("Content-Type", "application/json; charset=utf-8; x="+strings.Repeat("y", 1<<15)+"; charset=utf-16")
	}
	v := &visit{Case: outcome.Case{Host: r.Host, URI: r.RequestURI, Header: r.Header, Client: long, N: &notification.Notification{Type: long, Message: long, Instance: "1101000001", Chat: long, ID: long}, Body: []byte("{}")}}
	end := outcome.ToQuarantine(reason.Schema)
	for range 100 { // as many as there are at most
		end.Faults = append(end.Faults, notification.Fault{Pointer: "/" + strings.Repeat("p", 1<<15), Keyword: "type"})
	}
	entry := newEntry("default", &v.Case, end)
	head, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	if most := 128 << 10; len(head) > most {
		t.Errorf("head of %d bytes, want %d at most", len(head), most)
	}
	uri, err := url.ParseRequestURI(entry.URI)
	if err != nil || !strings.HasPrefix(uri.Path, "/hook/ ") || uri.RawQuery != "" {
		t.Errorf("URI %q: %v", entry.URI, err)
	}
	for _, kind := range entry.Header["Content-Type"] {
		if judge.IsJSON(kind) {
			t.Errorf("clipped, it has become JSON: %q", kind)
		}
	}
	short := &visit{Case: outcome.Case{Host: "hooks.example.com", URI: "/hook?a=b", Header: http.Header{"Content-Type": {notification.ContentType}}, N: v.N}}
	if e := newEntry("default", &short.Case, end); e.URI != "/hook?a=b" || e.Host != "hooks.example.com" || e.Header["Content-Type"][0] != notification.ContentType {
		t.Errorf("short ones are changed: %+v", e)
	}
}
