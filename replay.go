package greenapi

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// replayHeader marks a notification that a handler gets from the quarantine, with the entry's id.
const replayHeader = "X-Green-Api-Replay"

var errNoProxyToReplay = errors.New("the block has no reverse_proxy in it, so there is no way to its handlers but a request's")

// replay takes an entry through the gate validate again, if that is asked for, and to the handlers. tried
// are those that did not take it.
func (h *Handler) replay(entry quarantine.Entry, recheck bool) (end *outcome.Verdict, tried []string) {
	v := h.replayVisit(entry)
	if n, err := notification.Parse(entry.Body); err == nil {
		v.N = n
		v.placeholders()
	}
	end = h.replayEnd(v, entry, recheck)
	said := *end
	said.Fields = append([]zap.Field{zap.String("quarantine_id", entry.ID)}, end.Fields...)
	if check := h.logger.Check(said.Level, "quarantine entry replayed"); check != nil {
		check.Write(tell.RecordFields(&v.Case, &said)...)
	}
	return end, v.Tried()
}

func (h *Handler) replayEnd(v *visit, entry quarantine.Entry, recheck bool) *outcome.Verdict {
	if recheck {
		if _, end, _ := h.Validate.rules.JudgeBody(entry.Body, api.Header(entry)); end != nil {
			return end
		}
	}
	if h.proxy == nil {
		return &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.NoHandler, Level: zap.ErrorLevel, Err: errNoProxyToReplay}
	}
	return h.fleet.Replay(v.r.Context(), &v.Case, h.wayOf(v, noNext), &h.limits, &h.hooks)
}

// replayVisit is the request that an entry came with, as far as it is kept, and with a token of the
// config: none is kept.
func (h *Handler) replayVisit(entry quarantine.Entry) *visit {
	v := h.madeVisit(entry.URI, entry.Host, entry.Body)
	v.Body = entry.Body
	maps.Copy(v.r.Header, api.Header(entry))
	if token := h.Auth.headerFor(entry.Instance); token != "" {
		v.r.Header.Set("Authorization", token)
	}
	v.r.Header.Set(replayHeader, entry.ID)
	return v
}

// madeVisit is one that no request from outside began. Nobody who waits for it can cut it short.
func (h *Handler) madeVisit(uri, host string, body []byte) *visit {
	target, err := url.ParseRequestURI(uri)
	if err != nil {
		target = &url.URL{Path: "/"}
	}
	r := &http.Request{
		Method: http.MethodPost, URL: target, RequestURI: target.RequestURI(), Host: cmp.Or(host, "localhost"),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:0",
		Header: make(http.Header), Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	w := unread{header: make(http.Header)}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, h.server)
	return &visit{w: w, r: r, Case: outcome.Case{
		Kind: notification.KindNone,
		Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), N: new(notification.Notification),
	}}
}

// unread is where an answer goes that nobody waits for.
type unread struct{ header http.Header }

func (w unread) Header() http.Header            { return w.header }
func (w unread) Write(text []byte) (int, error) { return len(text), nil }
func (w unread) WriteHeader(int)                {}
