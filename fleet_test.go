package greenapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// only picks an upstream by its place in the pool, if it is there.
func only(up *reverseproxy.Upstream) pick {
	return func(pool reverseproxy.UpstreamPool, _ func(*reverseproxy.Upstream) int) *reverseproxy.Upstream {
		if slices.Contains(pool, up) {
			return up
		}
		return nil
	}
}

// TestPromiseHandedOn: whoever is called for a free place and then chooses another one leaves it to the next in
// line.
func TestPromiseHandedOn(t *testing.T) {
	f, p := newHandlerFleet(nil), pool(2)
	for _, up := range p {
		up.MaxRequests = 1
	}
	asking := func(second int64) *asking {
		return &asking{fleet: f, limits: new(limits), c: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, y, a, b := asking(1), asking(2), asking(3), asking(4)
	if x.choose(p, only(p[0])) == nil || y.choose(p, only(p[1])) == nil || a.choose(p, only(p[0])) != nil {
		t.Fatal("the places are not as they should be")
	}
	x.done(taken) // calls a, the only one in line
	y.done(taken)
	if a.promised.upstream != p[0].String() {
		t.Fatalf("promised %q", a.promised.upstream)
	}
	if b.choose(p[:1], only(p[0])) != nil {
		t.Fatal("has got a promised place")
	}
	if a.choose(p, only(p[1])) == nil {
		t.Fatal("the other place is free")
	}
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.choose(p[:1], only(p[0])) == nil {
		t.Error("the next in line has not got the place")
	}
	for _, a := range []interface{ close() }{x, y, a, b} {
		a.close()
	}
	if len(f.busy) != 0 || len(f.line) != 0 {
		t.Errorf("left: %v busy, %d in line", f.busy, len(f.line))
	}
}

// TestGivenUpInLine: what has given up is in line no longer, and no place is kept for it.
func TestGivenUpInLine(t *testing.T) {
	f, p := newHandlerFleet(nil), pool(1)
	p[0].MaxRequests = 1
	asking := func(second int64) *asking {
		return &asking{fleet: f, limits: new(limits), c: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, a, b := asking(1), asking(2), asking(3)
	if x.choose(p, only(p[0])) == nil || a.choose(p, only(p[0])) != nil || b.choose(p, only(p[0])) != nil {
		t.Fatal("the places are not as they should be")
	}
	a.close()
	if len(f.line) != 1 {
		t.Errorf("%d in line, want 1", len(f.line))
	}
	x.done(taken)
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.choose(p, only(p[0])) == nil {
		t.Error("the next in line has not got the place")
	}
	b.close()
	if len(f.busy) != 0 || len(f.line) != 0 {
		t.Errorf("left: %v busy, %d in line", f.busy, len(f.line))
	}
}

// TestLoadOfOthers: the requests that another block has with a handler count, too.
func TestLoadOfOthers(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	one := edgetest.NewUpstream(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/other") {
			close(began)
			<-goOn
		}
	})
	two := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+one.Address+" "+two.Address+"\n}\n"+
		"green_api /other {\nname other\n"+edgetest.Loopback+"reverse_proxy "+one.Address+"\n}\nrespond 404\n"))
	answer := make(chan int)
	go func() {
		answer <- e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+"/other", strings.NewReader(edgetest.TextMessage)).StatusCode
	}()
	<-began
	for i := range 10 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	close(goOn)
	if status := <-answer; status != 200 {
		t.Errorf("the other block's: status %d", status)
	}
	if n := len(one.Requests()); n != 1 {
		t.Errorf("the busy handler was asked %d times more", n-1)
	}
}
