package greenapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

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
//	POST   /green_api/quarantine/replay?FILTERS     one result a line; recheck=true validates first
//
// FILTERS and options may also be in the body, as in a query. FILTERS are reason, type, message, instance, chat, name, id (each may be repeated, and any of its
// values will do), since and until (a duration such as 24h, or RFC 3339); and, to take a list in
// pages, limit and after (an id).
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
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the config that runs has no green_api in it")}
		}
		return do(app.(*App), w, r)
	})
}

// badRequest is the error of a request that cannot be understood.
func badRequest(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
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
	Waiting       int            `json:"waiting"`
	AlertsPending int            `json:"alerts_pending"`
	ReportOnly    []reportOnly   `json:"report_only"`
	Drift         []driftRule    `json:"drift"` // rules that are no longer held against notifications
	Instances     []seenInstance `json:"instances"`
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
	s.Addresses.Date = vendorListDate
	for _, prefix := range vendorAddresses() {
		s.Addresses.List = append(s.Addresses.List, prefix.Addr().String())
	}
	stats := quarantineStats()
	s.Quarantine.Path, s.Quarantine.MaxBytes = a.Quarantine.Path, a.Quarantine.MaxSize
	s.Quarantine.Entries, s.Quarantine.Bytes, s.Quarantine.File = stats.Entries, stats.Bytes, stats.File
	s.Waiting, s.AlertsPending, s.Instances = waitingNotifications(), a.operator.alerts.pending(), a.operator.seen.list()
	s.Drift, s.ReportOnly = a.operator.drift.turned(), []reportOnly{}
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		h := a.blocks[name].handler
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
	return json.NewEncoder(w).Encode(s)
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

// A filter says which entries are meant.
type filter struct {
	values       map[string][]string // of fields; any of a field's values will do
	since, until time.Time
	after        string
	limit        int // 0 for none
	options      url.Values
}

// says tells whether an option is set.
func (f *filter) says(option string) bool { return f.options.Get(option) == "true" }

// filterFields are the fields that a filter can ask for.
var filterFields = map[string]func(quarantine.Entry) string{
	"id":       func(e quarantine.Entry) string { return e.ID },
	"reason":   func(e quarantine.Entry) string { return e.Reason },
	"type":     func(e quarantine.Entry) string { return e.Type },
	"message":  func(e quarantine.Entry) string { return e.Message },
	"instance": func(e quarantine.Entry) string { return e.Instance },
	"chat":     func(e quarantine.Entry) string { return e.Chat },
	"name":     func(e quarantine.Entry) string { return e.Name },
}

// parseFilter reads the filter of a request. options are the other parameters it may have.
func parseFilter(r *http.Request, options ...string) (filter, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return filter{}, badRequest(fmt.Errorf("query: %w", err))
	}
	// Caddy logs the URI of each request, so that a phone number had better be in the body.
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return filter{}, badRequest(err)
	}
	more, err := url.ParseQuery(strings.TrimSpace(string(body)))
	if err != nil {
		return filter{}, badRequest(errors.New("body: want parameters as in a query"))
	}
	for name, values := range more {
		query[name] = append(query[name], values...)
	}
	f := filter{values: make(map[string][]string), options: query}
	if id := r.PathValue("id"); id != "" {
		f.values["id"] = []string{id}
	}
	for name, values := range query {
		switch last := values[len(values)-1]; {
		case filterFields[name] != nil:
			f.values[name] = append(f.values[name], values...)
		case name == "since":
			f.since, err = pointInTime(last)
		case name == "until":
			f.until, err = pointInTime(last)
		case name == "after":
			f.after = last
		case name == "limit":
			if f.limit, err = strconv.Atoi(last); err == nil && f.limit < 1 {
				err = errors.New("want 1 or more")
			}
		case slices.Contains(options, name):
		default:
			err = errors.New("unknown parameter")
		}
		if err != nil {
			return filter{}, badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return f, nil
}

// pointInTime reads a time, or a duration before now.
func pointInTime(text string) (time.Time, error) {
	if ago, err := caddy.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q; want a duration such as 24h, or RFC 3339 such as 2026-11-21T15:04:05Z", text)
	}
	return at, nil
}

func (f *filter) everything() bool { return len(f.values) == 0 && f.since.IsZero() && f.until.IsZero() }

func (f *filter) matches(e quarantine.Entry) bool {
	for field, wanted := range f.values {
		if !slices.Contains(wanted, filterFields[field](e)) {
			return false
		}
	}
	if e.Received.IsZero() && !(f.since.IsZero() && f.until.IsZero()) {
		return false // it cannot be read
	}
	return (f.since.IsZero() || !e.Received.Before(f.since)) && (f.until.IsZero() || e.Received.Before(f.until))
}

// each calls do with each entry that the filter means, without its body, until do returns an error.
// A batch is read at a time, so that nothing waits for whoever reads a long list.
func (f *filter) each(store *quarantine.Store, do func(quarantine.Entry) error) error {
	after, left := f.after, f.limit
	for {
		const batch = 1000
		entries, err := store.List(after, batch)
		if err != nil && len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			after = entry.ID
			if !f.matches(entry) {
				continue
			}
			if err := do(entry); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		if len(entries) < batch {
			return nil
		}
	}
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

// lines writes one JSON object a line.
func lines(w http.ResponseWriter) func(any) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode
}

func (a *App) adminList(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilter(r, "body")
	if err != nil {
		return err
	}
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	whole := f.says("body")
	write := lines(w)
	return f.each(store, func(e quarantine.Entry) error {
		if whole {
			full, err := store.Get(e.ID)
			if errors.Is(err, quarantine.ErrNotFound) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return err
			}
			e = full
		}
		return write(show(e))
	})
}

func (a *App) adminShow(w http.ResponseWriter, r *http.Request) error {
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	entry, err := store.Get(r.PathValue("id"))
	if errors.Is(err, quarantine.ErrNotFound) {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
	}
	if err != nil {
		return err
	}
	return lines(w)(show(entry))
}

// adminDelete deletes entries and wipes what the file has left of them.
func (a *App) adminDelete(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilter(r, "all")
	if err != nil {
		return err
	}
	if f.everything() && !f.says("all") {
		return badRequest(errors.New("nothing said of what to delete; want a filter, or all=true"))
	}
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	var ids []string
	if err := f.each(store, func(e quarantine.Entry) error {
		ids = append(ids, e.ID)
		return nil
	}); err != nil {
		return err
	}
	deleted, err := store.Delete(ids...)
	if err == nil { // also what others deleted before
		err = store.Scrub()
	}
	if err != nil {
		return fmt.Errorf("%d of %d deleted: %w", deleted, len(ids), err)
	}
	a.logger.Info("quarantine entries deleted", deletedFields(f, deleted)...)
	return lines(w)(map[string]int{"deleted": deleted})
}

// deletedFields say what was deleted, without the chat that was asked for: it has a phone number.
func deletedFields(f filter, deleted int) []zap.Field {
	fields := []zap.Field{zap.Int("count", deleted)}
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		if name != "chat" {
			fields = append(fields, zap.Strings(name, f.values[name]))
		}
	}
	return fields
}

// Interface guards
var _ caddy.AdminRouter = (*AdminAPI)(nil)
