package greenapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

const defaultMaxQuarantine = 1 << 30

// Quarantine sets where broken notifications are kept, and how many.
type Quarantine struct {
	// Directory, created if missing. Only one Caddy process may use it at a time. Default: `green_api` in
	// Caddy's data directory.
	Path string `json:"path,omitempty"`

	// Maximum size in bytes. When it is full, notifications that fail their schema or have an unknown type
	// are delivered all the same; others are answered 503 and stay with the sender. Nothing that is kept is
	// ever discarded. If several instances send, it counts as full for an instance whose bodies fill a
	// quarter of it; bodies that name no instance share one quarter. Default: 1 GiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// Deletes older entries for good: no byte of them stays in the file. The operator is alerted 48 hours
	// before. If the machine's clock is set while Caddy runs, by more than an hour or a twentieth of
	// max_age (the lesser), nothing is deleted for the next 48 hours. Default: nothing is deleted.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	said string // the path as in the config, for logs and errors
}

// provision checks the options. It touches no file.
func (q *Quarantine) provision() error {
	if q.Path == "" {
		q.Path = filepath.Join(caddy.AppDataDir(), "green_api")
	}
	q.said = q.Path
	path, err := resolve(q.Path)
	if err != nil {
		return err
	}
	if q.Path, err = filepath.Abs(path); err != nil {
		return err
	}
	if q.MaxSize < 0 {
		return fmt.Errorf("max_size: invalid value %d; want a size above 0, such as 1GiB", q.MaxSize)
	}
	if q.MaxAge < 0 {
		return errors.New("max_age: want a duration above 0s, such as 7d")
	}
	if q.MaxSize == 0 {
		q.MaxSize = defaultMaxQuarantine
	}
	return nil
}

// sharedQuarantine is an entry of quarantines.
type sharedQuarantine struct {
	*quarantine.Shared
	times *delivery.FailureTimes
}

// holdQuarantine returns the quarantine for a path. Its file stays closed until Open.
func holdQuarantine(path string) *sharedQuarantine {
	shared, _, _ := quarantines.LoadOrNew(path, func() (caddy.Destructor, error) { // never fails
		times := delivery.NewFailureTimes()
		return &sharedQuarantine{times: times, Shared: quarantine.NewShared(path, func(store *quarantine.Store) (closing func()) {
			store.ShareBy(shareOf)
			store.SummarizeBy(builtinKind)
			return times.SaveIn(bookIn(store)).Stop
		})}, nil
	})
	return shared.(*sharedQuarantine)
}

// builtinKind returns the label of a type. It knows the built-in schemas only: a config may have others, but the store is
// that of several configs, and the labels must not change.
func builtinKind(typ string) string {
	schemas, err := notification.LoadSchemas("")
	if err != nil {
		return notification.KindOther // never: they are embedded
	}
	return schemas.Kind(typ)
}

func releaseQuarantine(path string) error {
	_, err := quarantines.Delete(path)
	return err
}

// Destruct closes the store once nobody holds it any longer.
func (s *sharedQuarantine) Destruct() error { return s.Close() }

// quarantineStats returns how much the open quarantines hold.
func quarantineStats() (all quarantine.Stats) {
	quarantines.Range(func(_, value any) bool {
		stats := value.(*sharedQuarantine).Stats()
		all.Entries += stats.Entries
		all.Bytes += stats.Bytes
		all.File += stats.File
		return true
	})
	return all
}

// keep puts the notification into the quarantine; it is durable when keep returns. If that fails, keep
// returns nil for a notification that a handler might take, so that it goes on, and otherwise a verdict
// that leaves it with the sender.
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
	store, release, err := a.openQuarantine()
	if err != nil {
		return "", a.Quarantine.hide(err)
	}
	defer release()
	id, err = store.PutShare(newEntry(name, c, end), a.Quarantine.MaxSize, a.maxShare(c.N.Instance, time.Now()))
	return id, a.Quarantine.hide(err)
}

// openQuarantine returns the store and a function to release it.
func (a *App) openQuarantine() (*quarantine.Store, func(), error) {
	shared := holdQuarantine(a.Quarantine.Path)
	release := func() { _ = releaseQuarantine(a.Quarantine.Path) } // a failed close does not undo what is durable
	store, err := shared.Open()
	if err != nil {
		release()
		return nil, nil, err
	}
	return store, release, nil
}

// hide removes the path from an error if the config has a placeholder for it.
func (q *Quarantine) hide(err error) error { return hidePath(err, q.said, q.Path) }

// newEntry returns what is kept of a notification. Everything but the body is clipped, because lists hold
// many entries in memory and the sender chooses how long these values are.
func newEntry(name string, c *outcome.Case, end *outcome.Verdict) quarantine.Entry {
	entry := quarantine.Entry{
		Received: c.Started, Name: name, Reason: string(end.Reason), Unadmitted: !c.Admitted,
		Type: outcome.ClipTo(c.N.Type, outcome.MaxHead), Message: outcome.ClipTo(c.N.Message, outcome.MaxHead), Instance: c.N.Instance, Chat: outcome.ClipTo(c.N.Chat, outcome.MaxHead), NotificationID: outcome.ClipTo(c.N.ID, outcome.MaxHead),
		Client: outcome.ClipTo(c.Client, outcome.MaxHead), Host: c.Host[:min(len(c.Host), maxKeptHost)], URI: clipURI(c.URI), Header: make(map[string][]string), Body: c.Body,
	}
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		for _, value := range c.Header.Values(name) {
			// Two values are enough to show a doubled header. A clipped value is not a JSON type to any
			// reader.
			if len(entry.Header[name]) < 2 {
				entry.Header[name] = append(entry.Header[name], outcome.ClipTo(value, maxKeptText))
			}
		}
	}
	if end.Syntax != nil {
		entry.Offset, entry.Cause = end.Syntax.Offset, end.Syntax.Cause
	}
	for _, said := range c.Answers {
		entry.Answers = append(entry.Answers, quarantine.Answer{Handler: said.Handler, Status: said.Status, Text: said.Text, Error: said.Error})
	}
	for _, f := range end.Faults {
		entry.Faults = append(entry.Faults, quarantine.Fault{Pointer: outcome.ClipTo(f.Pointer, maxKeptText), Keyword: f.Keyword})
	}
	return entry
}

// Maximum number of bytes of a value kept beside the body.
const (
	maxKeptHost = 255 // a DNS name is no longer
	maxKeptText = 1 << 10
)

// clipURI limits a URI. The result is still a valid URI, because a replay requests it.
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

// expiry returns what deletes entries older than max_age, wipes the remains of deleted ones and tells the
// operator.
func (a *App) expiry() *quarantine.Expiry {
	maxAge := time.Duration(a.Quarantine.MaxAge)
	return &quarantine.Expiry{
		MaxAge: maxAge, Clock: &a.operator.clock, Open: a.openQuarantine,
		ClockSet: func(by time.Duration) {
			a.logger.Warn("the clock was set: no quarantine entry is deleted for its age in the next 48 hours, unless Caddy is restarted", zap.Duration("by", by))
		},
		Soon: func(count int, first quarantine.Entry, now time.Time) {
			if !a.operator.daily.First(reason.Expiring, now) {
				return
			}
			a.operator.desk.Tell(outcome.Note{
				Reason: reason.Expiring, Kind: notification.KindNone, Level: zap.WarnLevel, Instance: first.Instance, Example: first.ID, At: now,
				More: strconv.Itoa(count) + " will be deleted within 48 hours. Replay or export them: caddy green-api quarantine list.",
			})
		},
		Deleted: func(count int) {
			a.logger.Warn("quarantine entries deleted, they were older than max_age", zap.Int("count", count), zap.Duration("max_age", maxAge))
		},
		Failed: func(err error) {
			message := "quarantine entries older than max_age could not be deleted"
			if maxAge == 0 {
				message = "what is left of deleted quarantine entries could not be wiped"
			}
			a.logger.Error(message, zap.Error(a.Quarantine.hide(err)))
		},
	}
}

// diskEvery is how often the quarantine's disk is checked.
const diskEvery = time.Minute

// watchDisk tells the operator when the quarantine's disk is nearly full, until ctx ends.
func (a *App) watchDisk(ctx context.Context) {
	ticker := time.NewTicker(diskEvery)
	defer ticker.Stop()
	for {
		if err := a.lookAtDisk(time.Now()); errors.Is(err, errors.ErrUnsupported) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookAtDisk checks the disk and reports a change. It returns an error if the free space is unknown.
func (a *App) lookAtDisk(now time.Time) error {
	free, err := a.diskFree(a.Quarantine.Path)
	if err != nil {
		a.operator.diskFree.Store(math.Float64bits(math.NaN()))
		if !errors.Is(err, errors.ErrUnsupported) && a.operator.daily.First("disk", now) {
			a.logger.Warn("how much is free on the quarantine's disk cannot be found out", zap.Error(a.Quarantine.hide(err)))
		}
		return err
	}
	a.operator.diskFree.Store(math.Float64bits(float64(free)))
	want := watch.WantFree(a.Quarantine.MaxSize)
	note := outcome.Note{Reason: reason.DiskLow, Kind: notification.KindNone, Level: zap.WarnLevel, At: now, Trouble: "disk"}
	bytes := []zap.Field{zap.Int64("free", free), zap.Int64("want", want)}
	switch a.operator.disk.See(free, want, now) {
	case watch.DiskLow:
		a.logger.Warn("little space is left on the quarantine's disk", append(bytes,
			zap.String("fix", "free some, or give the quarantine a disk of its own: when it is full, what has to be kept is answered 503 and its queue stands still"))...)
		note.More = fmt.Sprintf("%s are free, want %s. When it is full, what has to be kept is answered 503 and its queue stands still.", humanize.IBytes(uint64(free)), humanize.IBytes(uint64(want))) //nolint:gosec // not below 0
	case watch.DiskEnough:
		a.logger.Info("enough space is free on the quarantine's disk again", bytes...)
		note.Reason, note.Level, note.More = reason.Recovered, zap.InfoLevel, "There is space on the quarantine's disk again."
	default:
		return nil
	}
	a.operator.desk.Tell(note)
	return nil
}

// shares is the number of parts of the quarantine. If several instances send, the bodies of one instance
// fill at most one part, so that one instance's faults cannot use up the room of the others.
const shares = 4

// severalFor is how long an instance counts as sending after it has sent something.
const severalFor = 24 * time.Hour

// shareOf returns the instance whose share an entry counts against. If no handler took a notification, that
// is not the sender's fault and counts against no share. Bodies that name no instance have one share
// together.
func shareOf(e quarantine.Entry) (instance string, counted bool) {
	switch reason.Reason(e.Reason) {
	case reason.Malformed, reason.Encoding, reason.TooLarge, reason.Schema, reason.UnknownType, reason.UnknownMessage:
		return e.Instance, true
	}
	return "", false
}

// maxShare returns the maximum size of one share in bytes, 0 for no limit if only one instance sends.
func (a *App) maxShare(instance string, now time.Time) int64 {
	if !a.severalSend(instance, now) {
		return 0
	}
	return a.Quarantine.MaxSize / shares
}

// smallShares finds blocks that keep longer bodies than fit into a share. If several instances send, such a body
// can never be kept, and its queue stands still.
func (a *App) smallShares() (found []doctor.Finding) {
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		if longest := a.blocks[name].handler.Validate.MaxKeptBody; longest >= a.Quarantine.MaxSize/shares {
			found = append(found, doctor.Finding{
				Message: "a body as long as max_kept_body does not fit into a quarter of the quarantine, which is what one instance has",
				Fields: []zap.Field{
					zap.String("name", name), zap.Int64("max_kept_body", longest), zap.Int64("max_size", a.Quarantine.MaxSize),
					zap.String("fix", "raise max_size above four times max_kept_body, or lower that"),
				},
			})
		}
	}
	return found
}

// severalSend reports whether more than one instance sends, counting those that have sent something lately,
// those that the config names, and the one that is sending now.
func (a *App) severalSend(instance string, now time.Time) bool {
	known := newFew(2)
	known.add(instance)
	a.operator.seen.Recent(now.Add(-severalFor), known.add)
	for _, b := range a.blocks {
		if known.full() {
			break
		}
		for _, configured := range b.handler.configuredInstances() {
			known.add(configured)
		}
	}
	return known.full()
}

// few is a set that holds at most a few texts.
type few struct {
	of   map[string]bool
	most int
}

func newFew(most int) *few { return &few{make(map[string]bool), most} }

// add adds a text, unless it is empty, and reports whether there is room for more.
func (f *few) add(text string) bool {
	if text != "" && !f.full() {
		f.of[text] = true
	}
	return !f.full()
}

func (f *few) full() bool { return len(f.of) >= f.most }

// unmarshalCaddyfile sets up the block from Caddyfile tokens. Syntax:
//
//	quarantine [<directory>] {
//	    max_size <size>
//	    max_age  <duration>
//	}
func (q *Quarantine) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		q.Path = args[0]
	default:
		return d.Err("quarantine: want one directory, or none for the default")
	}
	return eachOption(d, "quarantine", []option{
		{name: "max_size", parse: func() error { return sizeArg(d, &q.MaxSize) }},
		{name: "max_age", parse: func() error { return durationArg(d, &q.MaxAge) }},
	})
}

// Interface guards
var _ caddy.Destructor = (*sharedQuarantine)(nil)

var errNoProxyToReplay = errors.New("the block has no reverse_proxy in it, so there is no way to its handlers but a request's")

// replay delivers an entry to the handlers, after validating it again if recheck is set. tried lists the
// handlers that did not take it.
func (h *Handler) replay(entry quarantine.Entry, recheck bool) (end *outcome.Verdict, tried []string) {
	v := h.replayVisit(entry)
	if n, err := notification.Parse(entry.Body); err == nil {
		v.N, v.Kind = n, h.Validate.rules.Schemas.Kind(n.Type)
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
	return h.fleet.Replay(&v.Case, h.wayOf(v, noNext), &h.limits, &h.hooks)
}

// replayVisit returns the visit that brought the entry, as far as it is kept. The token comes from the
// config, because the original is not kept.
func (h *Handler) replayVisit(entry quarantine.Entry) *visit {
	header := api.Header(entry)
	if token := h.Auth.headerFor(entry.Instance); token != "" {
		header.Set("Authorization", token)
	}
	header.Set(replayHeader, entry.ID)
	return h.unposted(outcome.Case{Host: entry.Host, URI: entry.URI, Header: header, Body: entry.Body})
}

// bookIn returns the book of failure times in a store.
func bookIn(store *quarantine.Store) delivery.Book {
	return delivery.Book{
		Load: func() ([]delivery.FirstFailure, error) {
			saved, err := store.FirstFailures()
			failures := make([]delivery.FirstFailure, len(saved))
			for i, f := range saved {
				failures[i] = delivery.FirstFailure(f)
			}
			return failures, err
		},
		Save: func(set []delivery.FirstFailure, gone []delivery.FailureKey) error {
			failures := make([]quarantine.FirstFailure, len(set))
			for i, f := range set {
				failures[i] = quarantine.FirstFailure(f)
			}
			return store.SaveFirstFailures(failures, gone, quarantineLimit())
		},
		Failed: func(err error) {
			caddy.Log().Named("green_api").Warn("the quarantine does not know since when notifications fail, a restart forgets it", zap.Error(err))
		},
	}
}
