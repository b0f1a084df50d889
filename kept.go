package greenapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// quarantines holds the open quarantines of the process by path: they outlive the config that
// opened them.
var quarantines = caddy.NewUsagePool()

// sharedQuarantine is a quarantine that is opened when it is first needed.
type sharedQuarantine struct {
	path  string
	mu    sync.Mutex
	store *quarantine.Store

	times  *delivery.FailureTimes
	saving *saver // of times; nil until the store is open
}

func holdQuarantine(path string) *sharedQuarantine {
	shared, _, _ := quarantines.LoadOrNew(path, func() (caddy.Destructor, error) { // never fails
		return &sharedQuarantine{path: path, times: delivery.NewFailureTimes()}, nil
	})
	return shared.(*sharedQuarantine)
}

// quarantineLimit is the max_size of the running config.
var quarantineLimit atomic.Int64

// quarantineStats says how much the open quarantines hold.
func quarantineStats() (all quarantine.Stats) {
	quarantines.Range(func(_, value any) bool {
		shared := value.(*sharedQuarantine)
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if shared.store != nil {
			stats := shared.store.Stats()
			all.Entries += stats.Entries
			all.Bytes += stats.Bytes
			all.File += stats.File
		}
		return true
	})
	return all
}

func releaseQuarantine(path string) error {
	_, err := quarantines.Delete(path)
	return err
}

func (s *sharedQuarantine) open() (*quarantine.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil {
		return s.store, nil
	}
	store, err := quarantine.Open(s.path)
	if err != nil {
		return nil, err
	}
	store.ShareBy(shareOf)
	s.store = store
	s.saving = save(s.times, store)
	return store, nil
}

// Destruct closes the store when nobody holds it any longer.
func (s *sharedQuarantine) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	s.saving.stop()
	return s.store.Close()
}

// keep puts the notification into the quarantine, where it is durable when keep returns. If that
// cannot be done, a notification that a handler might take goes on (nil), and any other stays with
// the sender.
func (h *Handler) keep(c *outcome.Case, end *outcome.Verdict) *outcome.Verdict {
	id, err := h.app.put(h.Name, c, end)
	if err == nil {
		c.QuarantineID = id
		end.Fields = append(end.Fields, zap.String("quarantine_id", id))
		return end
	}
	switch {
	case errors.Is(err, quarantine.ErrFull):
		err = fmt.Errorf("%w: raise max_size or clear it", err)
	case errors.Is(err, quarantine.ErrShare):
		err = fmt.Errorf("%w: a quarter of max_size is for what the bodies of one instance cause, or those that name none: raise max_size, or clear it of those", err)
	}
	unavailable := &outcome.Verdict{
		Outcome: outcome.Failed, Reason: reason.Quarantine, Status: http.StatusServiceUnavailable, Level: zap.ErrorLevel,
		Faults: end.Faults, Syntax: end.Syntax, Err: err,
		Fields: []zap.Field{zap.String("found", string(end.Reason))},
	}
	switch end.Reason {
	case reason.Schema, reason.UnknownType, reason.UnknownMessage:
		c.PassOn(unavailable)
		return nil
	}
	return unavailable
}

func (a *App) put(name string, c *outcome.Case, end *outcome.Verdict) (id string, err error) {
	shared := holdQuarantine(a.Quarantine.Path)
	defer releaseQuarantine(a.Quarantine.Path) //nolint:errcheck // closing does not undo what is durable
	store, err := shared.open()
	if err != nil {
		return "", a.Quarantine.hide(err)
	}
	id, err = store.PutShare(newEntry(name, c, end), a.Quarantine.MaxSize, a.maxShare(c.N.Instance, time.Now()))
	return id, a.Quarantine.hide(err)
}

// openQuarantine returns the store, and what to call when it is no longer used.
func (a *App) openQuarantine() (*quarantine.Store, func(), error) {
	shared := holdQuarantine(a.Quarantine.Path)
	release := func() { _ = releaseQuarantine(a.Quarantine.Path) } // closing does not undo what is durable
	store, err := shared.open()
	if err != nil {
		release()
		return nil, nil, err
	}
	return store, release, nil
}

// hide takes the path out of an error, if the config has a placeholder in its place.
func (q *Quarantine) hide(err error) error {
	if err == nil || !resolvable.MatchString(q.said) {
		return err
	}
	text := err.Error()
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok { // of a directory above it
		text = strings.ReplaceAll(text, wrapped.Path, q.said)
	}
	return hiding{err, strings.ReplaceAll(text, q.Path, q.said)}
}

// newEntry is what is kept of a notification. All of it but the body is clipped: lists hold many of
// these in memory, and the sender chooses how long they are.
func newEntry(name string, c *outcome.Case, end *outcome.Verdict) quarantine.Entry {
	entry := quarantine.Entry{
		Received: c.Started, Name: name, Reason: string(end.Reason), Unadmitted: !c.Admitted,
		Type: outcome.ClipTo(c.N.Type, outcome.MaxHead), Message: outcome.ClipTo(c.N.Message, outcome.MaxHead), Instance: c.N.Instance, Chat: outcome.ClipTo(c.N.Chat, outcome.MaxHead), NotificationID: outcome.ClipTo(c.N.ID, outcome.MaxHead),
		Client: outcome.ClipTo(c.Client, outcome.MaxHead), Host: c.Host[:min(len(c.Host), maxKeptHost)], URI: clipURI(c.URI), Header: make(map[string][]string), Body: c.Body,
	}
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		for _, value := range c.Header.Values(name) {
			// Two say as much as more. One that is clipped is no JSON type any longer, to whoever reads it.
			if len(entry.Header[name]) < 2 {
				entry.Header[name] = append(entry.Header[name], outcome.ClipTo(value, maxKeptText))
			}
		}
	}
	if end.Syntax != nil {
		entry.Offset, entry.Cause = end.Syntax.Offset, end.Syntax.Cause
	}
	for _, said := range c.Answers {
		entry.Answers = append(entry.Answers, quarantine.Answer(said))
	}
	for _, f := range end.Faults {
		entry.Faults = append(entry.Faults, quarantine.Fault{Pointer: outcome.ClipTo(f.Pointer, maxKeptText), Keyword: f.Keyword})
	}
	return entry
}

// Most bytes of what is kept beside a body.
const (
	maxKeptHost = 255 // a name of the DNS has no more
	maxKeptText = 1 << 10
)

// clipURI bounds a URI. What is left of a longer one is a URI, too: a replay asks for it.
func clipURI(uri string) string {
	if len(uri) <= maxKeptText {
		return uri
	}
	path, _, _ := strings.Cut(uri, "?")
	path = path[:min(len(path), maxKeptText)]
	if cut := strings.LastIndexByte(path, '%'); cut > len(path)-3 { // in the middle of an escape
		path = path[:cut]
	}
	return path
}
