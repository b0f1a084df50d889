package proxy

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// NewRequest makes a request for a notification that nobody posted: one received from the HTTP API, or one
// from the quarantine or the queue. Its context is never canceled. server is the server that the block belongs to, nil
// if that is not known.
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
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: cmp.Or(c.Remote, "127.0.0.1:0"),
		Header: c.Header, Body: io.NopCloser(bytes.NewReader(c.Body)), ContentLength: int64(len(c.Body)),
	}
	if c.TLS {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), unread{header: make(http.Header)}, server)
}

// unread discards an answer that nobody waits for.
type unread struct{ header http.Header }

func (w unread) Header() http.Header            { return w.header }
func (w unread) Write(text []byte) (int, error) { return len(text), nil }
func (w unread) WriteHeader(int)                {}
