package greenapi

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/drain"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestDrain: a reload waits until who has a connection to the old config has come over to the new
// one, but not for long.
func TestDrain(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Site(edgetest.Loopback + "reverse_proxy " + up.Address)
	e := edgetest.Start(t, config)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	try := func() (reused bool, response *http.Response, err error) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+edgetest.Token)
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		if response, err = client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace))); err != nil {
			return reused, nil, err
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
		return reused, response, nil
	}
	post := func() (reused bool, response *http.Response) {
		t.Helper()
		reused, response, err := try()
		if err != nil {
			t.Fatal(err)
		}
		return reused, response
	}
	post()
	if reused, response := post(); !reused || response.Close {
		t.Fatalf("before: connection reused %t, closed %t", reused, response.Close)
	}

	loaded := make(chan error)
	began := time.Now()
	go func() { loaded <- e.Load(config + "\n# changed") }()
	for {
		reused, response := post()
		if response.Close {
			if !reused {
				t.Error("the connection was closed before it was answered")
			}
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("the old config does not end its connections")
		}
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > drain.Period {
		t.Errorf("the reload took %s, although all had come over", took)
	}

	post() // and leaves an idle connection
	began = time.Now()
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < drain.Period || took > drain.Period+5*time.Second {
		t.Errorf("the reload with an idle connection took %s, want %s", took, drain.Period)
	}
	client.CloseIdleConnections()
	// For a moment after a reload, the old server may still accept a connection, and end it.
	edgetest.Eventually(t, "the new config, which keeps connections", func() bool {
		_, response, err := try()
		return err == nil && !response.Close
	})
}

// TestDrainByProtocol: a reload ends connections of HTTP/1 and HTTP/2, where Go makes a GOAWAY of the
// header. HTTP/3 forbids it: the answer would be malformed, and a 200 lost.
func TestDrainByProtocol(t *testing.T) {
	h := benchHandler(t, "ip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken demo-token\n}\n")
	before := h.app.drain
	h.app.drain = drain.New() // of no connection, so it is over at once
	h.app.drain.Wait()
	defer func() { h.app.drain = before }()
	for major, want := range map[int]string{1: "close", 2: "close", 3: ""} {
		w := &nowhere{header: make(http.Header)}
		r := benchRequest(w)
		r.ProtoMajor = major
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(edgetest.TextMessage)), int64(len(edgetest.TextMessage))
		taken := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusOK); return nil }
		if err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(taken)); err != nil || w.status != 200 {
			t.Fatal(err, w.status)
		}
		if got := w.header.Get("Connection"); got != want {
			t.Errorf("HTTP/%d: Connection %q, want %q", major, got, want)
		}
	}
}
