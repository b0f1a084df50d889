package greenapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// replayHeader marks a notification that a handler gets from the quarantine, with the entry's id.
const replayHeader = "X-Green-Api-Replay"

// replayers is how many entries are replayed at once. Those of one instance are replayed in order.
const replayers = 8

// replayed is what became of one entry.
type replayed struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
	Type     string `json:"type"`
	Outcome  string `json:"outcome"` // delivered, failed, kept (its body is still at fault) or skipped
	Reason   string `json:"reason"`
	Error    string `json:"error,omitempty"`
}

// More ends of a replay, beside those of a notification.
const (
	outcomeKept    = "kept"
	outcomeSkipped = "skipped" // it is of a reason that is replayed only when named
)

// optionTo is the option that says through which block to replay.
const optionTo = "to"

// replaying is how to replay.
type replaying struct {
	recheck bool
	to      string // name of a block; "" for the one that an entry came to
}

// adminReplay delivers entries and takes those out that a handler took.
func (a *App) adminReplay(w http.ResponseWriter, r *http.Request) error {
	f, store, release, err := a.chosen(r, "recheck", "all", optionTo)
	if err != nil {
		return err
	}
	defer release()
	if f.IsEmpty() && !f.says("all") {
		return badRequest(errors.New("nothing said of what to replay; want a filter, or all=true"))
	}
	how := replaying{recheck: f.says("recheck"), to: f.options.Get(optionTo)}
	if _, known := a.blocks[how.to]; how.to != "" && !known {
		return badRequest(fmt.Errorf("to: the config that runs has no green_api block named %q; want one of %s", how.to, a.blockNames()))
	}
	answer := lines(w)
	f.Unreadable = answer.unreadable
	var took atomic.Bool
	err = inOrder(r.Context(), &f, store, func(entry quarantine.Entry) {
		line, delivered := a.replayOne(&f, store, entry, how)
		if line != nil {
			_ = answer.send(line) // who asked may be gone; what was begun goes on
		}
		if delivered {
			took.Store(true)
		}
	})
	if took.Load() {
		err = errors.Join(err, store.Scrub())
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return answer.end(err)
	}
	for _, id := range f.Missing(store) {
		_ = answer.write(replayed{ID: id, Outcome: string(outcome.Failed), Reason: reason.NotFound, Error: quarantine.ErrNotFound.Error()})
	}
	return nil
}

// replayOne is replay of an entry that the filter means, unless that skips it.
func (a *App) replayOne(f *filter, store *quarantine.Store, e quarantine.Entry, how replaying) (line any, took bool) {
	if f.skips(e) {
		return replayed{ID: e.ID, Instance: e.Instance, Type: e.Type, Outcome: outcomeSkipped, Reason: e.Reason}, false
	}
	return a.replay(store, e.ID, how)
}

// skips reports whether an entry is replayed only when its reason or its id is named, and is not: no
// handler can read such a body, or not every handler in the same way.
func (f *filter) skips(e quarantine.Entry) bool {
	switch reason.Reason(e.Reason) {
	case reason.Malformed, reason.Encoding, reason.TooLarge:
		return !f.Wants("reason", e.Reason) && !f.Wants("id", e.ID)
	}
	return false
}

func (a *App) blockNames() string { return strings.Join(slices.Sorted(maps.Keys(a.blocks)), ", ") }

// inOrder calls do with each entry that the filter means, several at once, but those of one
// instance one after the other. It returns when all that was begun is done.
func inOrder(ctx context.Context, f *filter, store *quarantine.Store, do func(quarantine.Entry)) error {
	var queues [replayers]chan quarantine.Entry
	var working sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan quarantine.Entry)
		working.Go(func() {
			for entry := range queues[i] {
				do(entry)
			}
		})
	}
	seed := maphash.MakeSeed()
	err := f.Each(store, func(e quarantine.Entry) error {
		select {
		case queues[maphash.String(seed, e.Instance)%replayers] <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for _, queue := range queues {
		close(queue)
	}
	working.Wait()
	return err
}

// replay delivers one entry, and returns the line that says what became of it: nil if another replay
// has it in hand, or had.
func (a *App) replay(store *quarantine.Store, id string, how replaying) (line any, took bool) {
	if _, taken := a.operator.replaying.LoadOrStore(id, nil); taken {
		return nil, false
	}
	defer a.operator.replaying.Delete(id)
	entry, err := store.Get(id)
	switch {
	case errors.Is(err, quarantine.ErrNotFound):
		return nil, false
	case err != nil:
		return lineError{err.Error(), id}, false
	}
	result := replayed{ID: id, Instance: entry.Instance, Type: entry.Type, Outcome: string(outcome.Failed)}
	b, known := a.blocks[cmp.Or(how.to, entry.Name)]
	if !known {
		result.Reason = reason.NoHandler
		result.Error = fmt.Sprintf("the config that runs has no green_api block named %q; add --to NAME, one of: %s", entry.Name, a.blockNames())
		return result, false
	}
	if how.to == "" && !b.handler.isFor(entry.Instance) { // another block has the name now
		result.Reason = reason.NoHandler
		result.Error = fmt.Sprintf("the green_api block named %q has no token for this instance and does not receive it; to replay it all the same, add --to NAME, one of: %s", entry.Name, a.blockNames())
		return result, false
	}
	end, tried := b.handler.replay(entry, how.recheck)
	result.Outcome, result.Reason = string(end.Outcome), string(end.Reason)
	if end.Outcome != outcome.Delivered {
		result.Error = whyFailed(end.Err, tried)
	}
	if end.Outcome == outcome.Quarantined || end.Outcome == outcome.Dropped { // by --recheck: no handler got it
		result.Outcome = outcomeKept
	}
	if end.Outcome != outcome.Delivered {
		return result, false
	}
	if _, err := store.Delete(id); err != nil {
		result.Error = "delivered, but still in the quarantine: " + err.Error()
	}
	return result, true
}

// whyFailed names the handlers that did not take an entry, with what each said, once.
func whyFailed(err error, tried []string) string {
	slices.Sort(tried)
	why := strings.Join(slices.Compact(tried), ", ")
	switch {
	case err == nil || strings.Contains(why, err.Error()):
		return why
	case why == "":
		return err.Error()
	}
	return err.Error() + "; " + why
}

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
		check.Write(recordFields(&v.Case, &said)...)
	}
	return end, v.Tried()
}

func (h *Handler) replayEnd(v *visit, entry quarantine.Entry, recheck bool) *outcome.Verdict {
	if recheck {
		if _, end, _ := h.Validate.rules.JudgeBody(entry.Body, keptHeader(entry)); end != nil {
			return end
		}
	}
	if h.proxy == nil {
		return &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.NoHandler, Level: zap.ErrorLevel, Err: errNoProxyToReplay}
	}
	return h.fleet.replay(v.r.Context(), &v.Case, h.wayOf(v, noNext), &h.limits, &h.hooks)
}

// replayVisit is the request that an entry came with, as far as it is kept, and with a token of the
// config: none is kept.
func (h *Handler) replayVisit(entry quarantine.Entry) *visit {
	v := h.madeVisit(entry.URI, entry.Host, entry.Body)
	v.Body = entry.Body
	maps.Copy(v.r.Header, keptHeader(entry))
	if token := h.Auth.headerFor(entry.Instance); token != "" {
		v.r.Header.Set("Authorization", token)
	}
	v.r.Header.Set(replayHeader, entry.ID)
	return v
}

// keptHeader is what is kept of the header that an entry came with.
func keptHeader(entry quarantine.Entry) http.Header {
	header := make(http.Header)
	for name, values := range entry.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	return header
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
	w := &answerWriter{header: make(http.Header)}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, h.server)
	return &visit{w: w, r: r, Case: outcome.Case{
		Kind: notification.KindNone,
		Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), N: new(notification.Notification),
	}}
}
