package proxy

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// NewRequest makes a request of a notification that nobody posted: one that was received from the HTTP API, or
// comes from the quarantine. Its context ends with nobody's. server is the one that the block is for, nil if
// that is not known.
func NewRequest(c *outcome.Case, server *caddyhttp.Server) *http.Request {
	if c.Header == nil {
		c.Header = make(http.Header)
	}
	target, err := url.ParseRequestURI(c.URI)
	if err != nil {
		target = &url.URL{Path: "/"}
	}
	r := &http.Request{
		Method: http.MethodPost, URL: target, RequestURI: target.RequestURI(), Host: cmp.Or(c.Host, "localhost"),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:0",
		Header: c.Header, Body: io.NopCloser(bytes.NewReader(c.Body)), ContentLength: int64(len(c.Body)),
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), unread{header: make(http.Header)}, server)
}

// unread is where an answer goes that nobody waits for.
type unread struct{ header http.Header }

func (w unread) Header() http.Header            { return w.header }
func (w unread) Write(text []byte) (int, error) { return len(text), nil }
func (w unread) WriteHeader(int)                {}
