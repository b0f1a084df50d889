package greenapi

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

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
}

func holdQuarantine(path string) *sharedQuarantine {
	shared, _, _ := quarantines.LoadOrNew(path, func() (caddy.Destructor, error) { // never fails
		return &sharedQuarantine{path: path}, nil
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
	s.store = store
	return store, nil
}

// Destruct closes the store when nobody holds it any longer.
func (s *sharedQuarantine) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// keep puts the notification into the quarantine, where it is durable when keep returns. If that
// cannot be done, a notification that a handler might take goes on (nil), and any other stays with
// the sender.
func (h *Handler) keep(v *visit, end *verdict) *verdict {
	id, err := h.app.put(h.Name, v, end)
	if err == nil {
		v.quarantineID = id
		end.fields = append(end.fields, zap.String("quarantine_id", id))
		return end
	}
	if errors.Is(err, quarantine.ErrFull) {
		err = fmt.Errorf("%w: raise max_size or clear it", err)
	}
	unavailable := &verdict{
		outcome: failed, reason: reasonQuarantine, status: http.StatusServiceUnavailable, level: zap.ErrorLevel,
		faults: end.faults, syntax: end.syntax, err: err,
		fields: []zap.Field{zap.String("found", end.reason)},
	}
	switch end.reason {
	case reasonSchema, reasonUnknownType, reasonUnknownMessage:
		v.passOn(unavailable)
		return nil
	}
	return unavailable
}

func (a *App) put(name string, v *visit, end *verdict) (id string, err error) {
	shared := holdQuarantine(a.Quarantine.Path)
	defer releaseQuarantine(a.Quarantine.Path) //nolint:errcheck // closing does not undo what is durable
	store, err := shared.open()
	if err != nil {
		return "", err
	}
	return store.Put(newEntry(name, v, end), a.Quarantine.MaxSize)
}

func newEntry(name string, v *visit, end *verdict) quarantine.Entry {
	entry := quarantine.Entry{
		Received: v.started, Name: name, Reason: end.reason,
		Type: v.n.Type, Message: v.n.Message, Instance: v.n.Instance, Chat: v.n.Chat, NotificationID: v.n.ID,
		Client: v.client, Host: v.r.Host, URI: v.r.RequestURI, Header: make(map[string][]string), Body: v.body,
	}
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if values := v.r.Header.Values(name); len(values) > 0 {
			entry.Header[name] = values
		}
	}
	if end.syntax != nil {
		entry.Offset, entry.Cause = end.syntax.Offset, end.syntax.Cause
	}
	entry.Answers = v.answers
	for _, f := range end.faults {
		entry.Faults = append(entry.Faults, quarantine.Fault{Pointer: f.Pointer, Keyword: f.Keyword})
	}
	return entry
}
