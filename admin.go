package greenapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI serves what the operator may look at and do, in Caddy's admin API:
//
//	GET    /green_api/status
//	GET    /green_api/quarantine?FILTERS            one entry a line, without bodies but for body=true
//	GET    /green_api/quarantine/ID
//	DELETE /green_api/quarantine/ID
//	DELETE /green_api/quarantine?FILTERS            or all=true
//	POST   /green_api/quarantine/replay?FILTERS     or all=true; one result a line; recheck=true
//	                                                validates first, to=NAME is for another block
//
// FILTERS and options may also be in the body, as in a query, of 1 MiB at most. FILTERS are reason,
// type, message, instance, chat, name, id (each may be repeated, and any of its values will do), since
// and until (a duration such as 24h, or RFC 3339); and, to take a list in pages, limit and after (an
// id). An empty value and a reason that there is not are refused with 400.
//
// A line that begins with "error" is neither an entry nor a result: it says which "entry" cannot be
// read, and others follow; or, without one, why the answer ends early.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.green_api", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes returns the routes.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/green_api/status", Handler: adminHandler(map[string]adminFunc{http.MethodGet: (*App).adminStatus})},
		{Pattern: "/green_api/quarantine", Handler: adminHandler(map[string]adminFunc{
			http.MethodGet: (*App).adminList, http.MethodDelete: (*App).adminDelete,
		})},
		{Pattern: "/green_api/quarantine/replay", Handler: adminHandler(map[string]adminFunc{http.MethodPost: (*App).adminReplay})},
		{Pattern: "/green_api/quarantine/{id}", Handler: adminHandler(map[string]adminFunc{
			http.MethodGet: (*App).adminShow, http.MethodDelete: (*App).adminDelete,
		})},
	}
}

type adminFunc func(*App, http.ResponseWriter, *http.Request) error

// adminHandler finds the app of the config that runs, at each request: admin routes are set up
// before any app.
func adminHandler(methods map[string]adminFunc) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		do := methods[r.Method]
		if do == nil {
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method %s not allowed", r.Method)}
		}
		app, err := caddy.ActiveContext().AppIfConfigured("green_api")
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoEdge}
		}
		err = do(app.(*App), w, r)
		if _, said := err.(caddy.APIError); said { //nolint:errorlint // as Caddy looks at it
			return err
		}
		return app.(*App).Quarantine.hide(err)
	})
}

// badRequest is the error of a request that cannot be understood.
func badRequest(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
}

// notFound is the error of a request for something that is not there.
func notFound(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
}

// status is what /green_api/status shows.
type status struct {
	Version   string `json:"version"`
	Caddy     string `json:"caddy"`
	Addresses struct {
		Date string   `json:"date"`
		List []string `json:"list"`
	} `json:"addresses"`
	Quarantine struct {
		Path     string `json:"path"`
		Entries  int    `json:"entries"`
		Bytes    int64  `json:"bytes"`
		MaxBytes int64  `json:"max_bytes"`
		File     int64  `json:"file_bytes"`
	} `json:"quarantine"`
	Outcomes map[outcome.Outcome]int64 `json:"outcomes"` // how many requests have ended so, over reloads

	Waiting       int               `json:"waiting"`
	AlertsPending int               `json:"alerts_pending"`
	ReportOnly    []reportOnly      `json:"report_only"`
	Drift         []watch.RuleState `json:"drift"`     // rules that are no longer held against notifications
	NewTypes      []watch.TypeState `json:"new_types"` // types without a schema that are passed on
	Receivers     []receiver.State  `json:"receivers"` // of the HTTP API
	Instances     []watch.Instance  `json:"instances"`
}

// reportOnly is a gate that refuses nothing.
type reportOnly struct {
	Name string `json:"name"`
	Gate string `json:"gate"`
}

func (a *App) adminStatus(w http.ResponseWriter, _ *http.Request) error {
	var s status
	s.Version = moduleVersion()
	s.Caddy, _ = caddy.Version()
	s.Addresses.Date = address.VendorDate
	for _, prefix := range address.Vendor() {
		s.Addresses.List = append(s.Addresses.List, prefix.Addr().String())
	}
	stats := quarantineStats()
	s.Quarantine.Path, s.Quarantine.MaxBytes = a.Quarantine.Path, a.Quarantine.MaxSize
	s.Quarantine.Entries, s.Quarantine.Bytes, s.Quarantine.File = stats.Entries, stats.Bytes, stats.File
	s.Waiting, s.AlertsPending, s.Instances = waitingNotifications(), a.operator.alerts.pending(), a.operator.seen.List()
	s.Outcomes, s.Receivers = a.operator.totals.counts(), receivers.States()
	s.Drift, s.NewTypes, s.ReportOnly = []watch.RuleState{}, []watch.TypeState{}, []reportOnly{}
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		h := a.blocks[name].handler
		if h.Validate.drift != nil {
			rules, types := h.Validate.drift.Turned(name)
			s.Drift, s.NewTypes = append(s.Drift, rules...), append(s.NewTypes, types...)
		}
		for _, gate := range []struct {
			name string
			on   bool
		}{{"ip_filter", h.IPFilter.ReportOnly}, {"auth", h.Auth.ReportOnly}, {"validate", h.Validate.ReportOnly}} {
			if gate.on {
				s.ReportOnly = append(s.ReportOnly, reportOnly{name, gate.name})
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(outcome.JSONWriter{To: w}).Encode(s)
}

// moduleVersion is the version of this module in the binary.
func moduleVersion() string {
	const path = "github.com/greenapi-community/caddy-green-api"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if module.Path == path && module.Version != "" {
			return module.Version
		}
	}
	return "(devel)"
}

// shownEntry is an entry as the admin API shows it: with its body as a string, or in base64 if it
// is not UTF-8.
type shownEntry struct {
	quarantine.Entry
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

func show(e quarantine.Entry) shownEntry {
	shown := shownEntry{Entry: e}
	if utf8.Valid(e.Body) {
		shown.Body = string(e.Body)
	} else {
		shown.BodyBase64 = e.Body
	}
	shown.Entry.Body = nil
	return shown
}

// body is the body of an entry that was shown.
func (e shownEntry) body() []byte {
	if e.BodyBase64 != nil {
		return e.BodyBase64
	}
	return []byte(e.Body)
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

// chosen reads the filter of a request and opens the quarantine.
func (a *App) chosen(r *http.Request, options ...string) (f filter, store *quarantine.Store, release func(), err error) {
	if f, err = parseFilter(r, options...); err != nil {
		return f, nil, nil, err
	}
	store, release, err = a.openQuarantine()
	return f, store, release, err
}

// answerLines writes one JSON object a line.
type answerLines struct {
	mu     sync.Mutex
	to     http.ResponseWriter
	encode func(any) error
	begun  bool
}

// lineError is a line about something that went wrong behind the first line of an answer. An entry
// and a result begin with their id, and this never does.
type lineError struct {
	Error string `json:"error"`
	Entry string `json:"entry,omitempty"` // id of the one that could not be read
}

func lines(w http.ResponseWriter) *answerLines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(outcome.JSONWriter{To: w})
	encoder.SetEscapeHTML(false)
	return &answerLines{to: w, encode: encoder.Encode}
}

func (l *answerLines) write(line any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = true
	return l.encode(line)
}

// send writes a line that whoever asked is to have now: what comes next may take long.
func (l *answerLines) send(line any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = true
	if err := l.encode(line); err != nil {
		return err
	}
	return http.NewResponseController(l.to).Flush()
}

// unreadable writes that an entry could not be read. What is behind it can be.
func (l *answerLines) unreadable(id string, err error) error {
	return l.write(lineError{err.Error(), id})
}

// end says why the answer ends early: by its status, if that is not yet on its way.
func (l *answerLines) end(err error) error {
	if err == nil || !l.begun {
		return err
	}
	_ = l.write(lineError{Error: err.Error()}) // who asked may be gone
	return nil
}

func (a *App) adminList(w http.ResponseWriter, r *http.Request) error {
	f, store, release, err := a.chosen(r, "body")
	if err != nil {
		return err
	}
	defer release()
	whole := f.says("body")
	answer := lines(w)
	f.Unreadable = answer.unreadable
	return answer.end(f.Each(store, func(e quarantine.Entry) error {
		if whole {
			full, err := store.Get(e.ID)
			if errors.Is(err, quarantine.ErrNotFound) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return answer.unreadable(e.ID, err)
			}
			e = full
		}
		return answer.write(show(e))
	}))
}

func (a *App) adminShow(w http.ResponseWriter, r *http.Request) error {
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	entry, err := store.Get(r.PathValue("id"))
	if errors.Is(err, quarantine.ErrNotFound) {
		return notFound(err)
	}
	if err != nil {
		return err
	}
	return lines(w).write(show(entry))
}

// deletion is the answer to a DELETE.
type deletion struct {
	Deleted int      `json:"deleted"`
	Missing []string `json:"missing,omitempty"` // ids that were asked for and that no entry has
}

// adminDelete deletes entries and wipes what the file has left of them.
func (a *App) adminDelete(w http.ResponseWriter, r *http.Request) error {
	f, store, release, err := a.chosen(r, "all")
	if err != nil {
		return err
	}
	defer release()
	if f.IsEmpty() && !f.says("all") {
		return badRequest(errors.New("nothing said of what to delete; want a filter, or all=true"))
	}
	var ids []string
	if err := f.Each(store, func(e quarantine.Entry) error {
		ids = append(ids, e.ID)
		return nil
	}); err != nil {
		return err
	}
	done := deletion{Missing: f.Missing(store)}
	if id := r.PathValue("id"); id != "" && slices.Contains(done.Missing, id) {
		return notFound(fmt.Errorf("entry %q: %w", id, quarantine.ErrNotFound))
	}
	done.Deleted, err = store.Delete(ids...)
	if err == nil { // also what others deleted before
		err = store.Scrub()
	}
	if err != nil {
		return fmt.Errorf("%d of %d deleted: %w", done.Deleted, len(ids), err)
	}
	a.logger.Info("quarantine entries deleted", deletedFields(f, done.Deleted)...)
	return lines(w).write(done)
}

// mostLogged is how many values of a field a record lists.
const mostLogged = 100

// deletedFields say what was deleted, without the chat that was asked for: it has a phone number.
func deletedFields(f filter, deleted int) []zap.Field {
	fields := []zap.Field{zap.Int("count", deleted)}
	for _, name := range f.Fields() {
		switch wanted := f.Values(name); {
		case name == "chat":
		case len(wanted) > mostLogged:
			fields = append(fields, zap.Int(name+"s", len(wanted)))
		default:
			fields = append(fields, zap.Strings(name, wanted))
		}
	}
	return fields
}

// Interface guards
var _ caddy.AdminRouter = (*AdminAPI)(nil)
