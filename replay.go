package greenapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

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
	Outcome  string `json:"outcome"` // delivered, failed, or kept: its body is still at fault
	Reason   string `json:"reason"`
	Error    string `json:"error,omitempty"`
}

const outcomeKept = "kept"

// adminReplay delivers entries and takes those out that a handler took.
func (a *App) adminReplay(w http.ResponseWriter, r *http.Request) error {
	f, store, release, err := a.chosen(r, "recheck")
	if err != nil {
		return err
	}
	defer release()
	recheck := f.says("recheck")

	var mu sync.Mutex
	took := 0
	write := lines(w)
	flusher := http.NewResponseController(w)
	err = inOrder(r.Context(), &f, store, func(entry quarantine.Entry) {
		result, ours := a.replay(store, entry.ID, recheck)
		if !ours {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_ = write(result) // who asked may be gone; what was begun goes on
		_ = flusher.Flush()
		if result.Outcome == string(delivered) {
			took++
		}
	})
	if took > 0 {
		err = errors.Join(err, store.Scrub())
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

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
	err := f.each(store, func(e quarantine.Entry) error {
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

// replay delivers one entry. ours is false if another replay has it in hand, or had.
func (a *App) replay(store *quarantine.Store, id string, recheck bool) (result replayed, ours bool) {
	if _, taken := a.operator.replaying.LoadOrStore(id, nil); taken {
		return result, false
	}
	defer a.operator.replaying.Delete(id)
	entry, err := store.Get(id)
	if errors.Is(err, quarantine.ErrNotFound) {
		return result, false
	}
	result = replayed{ID: id, Instance: entry.Instance, Type: entry.Type, Outcome: string(failed)}
	if err != nil {
		result.Reason, result.Error = reasonQuarantine, err.Error()
		return result, true
	}
	b, known := a.blocks[entry.Name]
	if !known {
		result.Reason, result.Error = reasonNoHandler, fmt.Sprintf("the config that runs has no green_api block named %q", entry.Name)
		return result, true
	}
	end := b.handler.replay(entry, recheck)
	result.Outcome, result.Reason = string(end.outcome), end.reason
	if end.err != nil {
		result.Error = end.err.Error()
	}
	if end.outcome == quarantined || end.outcome == dropped { // by --recheck: no handler got it
		result.Outcome = outcomeKept
	}
	if end.outcome == delivered {
		if _, err := store.Delete(id); err != nil {
			result.Error = "delivered, but still in the quarantine: " + err.Error()
		}
	}
	return result, true
}

var errNoProxyToReplay = errors.New("the block has no reverse_proxy in it, so there is no way to its handlers but a request's")

// replay takes an entry through the gate validate again, if that is asked for, and to the handlers.
func (h *Handler) replay(entry quarantine.Entry, recheck bool) *verdict {
	v := h.replayVisit(entry)
	if n, err := notification.Parse(entry.Body); err == nil {
		v.n = n
		v.placeholders()
	}
	end := h.replayEnd(v, entry, recheck)
	said := *end
	said.fields = append([]zap.Field{zap.String("quarantine_id", entry.ID)}, end.fields...)
	if check := h.logger.Check(said.level, "quarantine entry replayed"); check != nil {
		check.Write(recordFields(v, &said)...)
	}
	return end
}

func (h *Handler) replayEnd(v *visit, entry quarantine.Entry, recheck bool) *verdict {
	if recheck {
		n, end := h.Validate.parseBody(entry.Body)
		if end == nil {
			end, _ = h.Validate.judge(n)
		}
		if end != nil {
			return end
		}
	}
	if h.proxy == nil {
		return &verdict{outcome: failed, reason: reasonNoHandler, level: zap.ErrorLevel, err: errNoProxyToReplay}
	}
	got := h.ask(v, noNext)
	if got.result != taken {
		return failure(got)
	}
	h.fleet.taken.Add(1)
	return &verdict{outcome: delivered, status: http.StatusOK, level: zap.InfoLevel}
}

// replayVisit is the request that an entry came with, as far as it is kept, and with a token of the
// config: none is kept.
func (h *Handler) replayVisit(entry quarantine.Entry) *visit {
	v := h.madeVisit(entry.URI, entry.Host, entry.Body)
	v.body = entry.Body
	for name, values := range entry.Header {
		v.r.Header[http.CanonicalHeaderKey(name)] = values
	}
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
	w := &answerWriter{header: make(http.Header)}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, h.server)
	return &visit{w: w, r: r, started: time.Now(), n: new(notification.Notification)}
}
