package greenapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI serves what the operator can look at and do, in Caddy's admin API:
//
//	GET    /green_api/status
//	GET    /green_api/live                          server-sent events: what ends, as it ends; once, after the
//	                                                row since, for a client that does not accept them
//	GET    /green_api/activity                      what people did in the console lately, the newest first
//	POST   /green_api/activity                      action, user, client_ip, quarantine_id and count in the
//	                                                body: the console says what it is about to do
//	GET    /green_api/health                        200, or 503 if the edge is not ready
//	POST   /green_api/fit                           instance, url and token in the body: does it fit?
//	POST   /green_api/alert/test                    sends one through each alert; one result a line
//	GET    /green_api/quarantine?FILTERS            one entry a line, without bodies unless body=true
//	POST   /green_api/quarantine/search             FILTERS in the body; newest first, in pages: limit up to
//	                                                500, before is the more of the page before
//	GET    /green_api/quarantine/summary            how many there are: by reason, type, instance and day
//	GET    /green_api/quarantine/ID                 without the body if body=false; marks=true adds where its
//	                                                faults are
//	DELETE /green_api/quarantine/ID
//	DELETE /green_api/quarantine?FILTERS            or all=true
//	POST   /green_api/quarantine/replay?FILTERS     or all=true; one result a line; recheck=true
//	                                                validates first, to=NAME is for another block
//	GET    /green_api/queue                         one lane a line, with name, instance and limit
//	GET    /green_api/queue/LANE                    its line, and behind it one line for each of its first
//	                                                entries: limit, 100 by default
//	GET    /green_api/queue/state                   what it holds, what is paused, and whether it drains
//	POST   /green_api/queue/pause                   name and instance; all if neither is said. These three
//	POST   /green_api/queue/resume                  answer the state: a broader pause than the one that was
//	POST   /green_api/queue/drain                   resumed may remain. off=true ends draining
//	POST   /green_api/queue/retry                   lane, or name and instance, or all=true; answers lanes
//	POST   /green_api/queue/skip                    lane, seq: its first notification goes to the quarantine;
//	                                                409 while it is being delivered
//	POST   /green_api/queue/move                    from, a block that the config no longer has, to another.
//	                                                Skip and move answer entries
//
// FILTERS and options may also be in the body, in the form of a query, up to 1 MiB. FILTERS are reason,
// type, message, instance, chat, name, id (each may be repeated; any of its values matches), since and
// until (a duration such as 24h, or RFC 3339), and, to page through a list, limit and after (an id). An
// empty value and an unknown reason are refused with 400.
//
// A replay or a deletion with dry_run=true only answers what is meant, and an until for the same request later.
//
// A line that begins with "error" is neither an entry nor a result. With "entry", it names an entry that
// cannot be read, and other lines follow; without, it says why the answer ends early.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.green_api", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes returns the routes below /green_api/, which ask the config in effect.
func (AdminAPI) Routes() (routes []caddy.AdminRoute) {
	for _, route := range api.Routes() {
		routes = append(routes, adminRoute(route.Pattern, func(w http.ResponseWriter, r *http.Request) error {
			return route.Serve(w, r, activeEdge)
		}))
	}
	return append(routes, adminRoute(api.HealthPath, func(w http.ResponseWriter, r *http.Request) error {
		return api.ServeHealth(w, r, health)
	}))
}

// adminRoute returns a route whose errors Caddy answers with the status that they carry.
func adminRoute(pattern string, serve func(http.ResponseWriter, *http.Request) error) caddy.AdminRoute {
	return caddy.AdminRoute{Pattern: pattern, Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		err := serve(w, r)
		if said, ok := err.(*api.Error); ok { //nolint:errorlint // as Caddy looks at an APIError
			return caddy.APIError{HTTPStatus: said.Status, Err: said.Err}
		}
		return err
	})}
}

// activeApp returns the app of the config in effect, or nil. It is looked up for each request, because
// admin routes are set up before any app.
func activeApp() *App {
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		return nil
	}
	return app.(*App)
}

// activeEdge returns the edge of the config in effect, or nil.
func activeEdge() *api.Edge {
	app := activeApp()
	if app == nil {
		return nil
	}
	return app.edge()
}

// edge returns the app as the admin API sees it.
func (a *App) edge() *api.Edge {
	return &api.Edge{
		Status:        a.status,
		Quarantine:    a.openQuarantine,
		Hide:          a.Quarantine.hide,
		ParseDuration: caddy.ParseDuration,
		Blocks:        slices.Sorted(maps.Keys(a.blocks)),
		IsFor:         func(block, instance string) bool { return a.blocks[block].handler.isFor(instance) },
		Replay: func(block string, entry quarantine.Entry, recheck bool) (*outcome.Verdict, []string) {
			return a.blocks[block].handler.replay(entry, recheck)
		},
		Feed:       a.operator.desk.Feed,
		Waiting:    waitingNotifications,
		Ending:     a.ending.Done(),
		Exiting:    caddy.Exiting,
		Streams:    &a.operator.streams,
		Replays:    &a.operator.replays,
		Activity:   &a.operator.activity,
		Queue:      a.queue.dispatcher.Load,
		TestAlerts: a.testAlerts,
		Fit:        a.fit,
		Log:        a.logger,
	}
}

func (a *App) status() (s api.Status) {
	s.Caddy, _ = caddy.Version()
	stats := quarantineStats()
	s.Quarantine.Path, s.Quarantine.MaxBytes = a.Quarantine.Path, a.Quarantine.MaxSize
	s.Quarantine.Entries, s.Quarantine.Bytes, s.Quarantine.File = stats.Entries, stats.Bytes, stats.File
	s.Waiting, s.AlertsPending, s.Instances = waitingNotifications(), a.operator.desk.Pending(), a.operator.seen.List()
	s.Outcomes, s.Receivers = a.operator.desk.Feed.Totals(), receivers.States()
	s.Alerts, s.Warnings, s.WouldBe = a.lastAlerts(), a.warnings(), a.operator.desk.WouldBe()
	s.Standing, s.Queue = a.standing(), a.queueStatus()
	s.Silent, s.Refused = []watch.Silent{}, a.operator.refused.List(time.Now(), a.knows)
	if len(a.silences()) > 0 {
		s.Silent = a.operator.silent.Silent()
	}
	s.Blocks = []api.Block{}
	s.Drift, s.NewTypes, s.ReportOnly = []watch.RuleState{}, []watch.TypeState{}, []api.ReportOnly{}
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		h := a.blocks[name].handler
		s.Blocks = append(s.Blocks, h.status())
		if h.Validate.drift != nil {
			rules, types := h.Validate.drift.Turned(name)
			s.Drift, s.NewTypes = append(s.Drift, rules...), append(s.NewTypes, types...)
		}
		for _, gate := range []struct {
			name string
			on   bool
		}{{"ip_filter", h.IPFilter.ReportOnly}, {"auth", h.Auth.ReportOnly}, {"validate", h.Validate.ReportOnly}} {
			if gate.on {
				s.ReportOnly = append(s.ReportOnly, api.ReportOnly{Name: name, Gate: gate.name})
			}
		}
	}
	return s
}

// knows reports whether the config names an instance, or something of it has been let in.
func (a *App) knows(instance string) bool {
	for _, b := range a.blocks {
		if b.handler.configured(instance) {
			return true
		}
	}
	return a.operator.seen.Knows(instance)
}

// standsAfter is how long handlers are asked before an instance is said to stand still.
const standsAfter = 2 * time.Second

// standing returns the instances that stand still, also those of blocks that the config no longer has and of
// which something is still in flight.
func (a *App) standing() []api.Standing {
	all := []api.Standing{}
	fleets.Range(func(name, value any) bool {
		for _, one := range value.(*fleet).Standing() {
			if a.operator.seen.Answered(one.Instance).After(one.Seen) { // by another block, or before it got to handlers
				continue
			}
			if one.Waiting && time.Since(one.Since) < standsAfter { // the next handler may take it
				continue
			}
			all = append(all, api.Standing{
				Instance: one.Instance, Name: name.(string), Since: one.Since.UTC(), Attempts: one.Attempts, Reason: one.Reason,
				Handler: one.Handler, Handlers: append([]string{}, one.Handlers...), Said: one.Said, Waiting: one.Waiting, Next: one.Next.UTC(),
			})
		}
		return true
	})
	if d := a.queue.dispatcher.Load(); d != nil {
		all = append(all, api.StandingOf(d.Lanes())...)
	}
	slices.SortStableFunc(all, func(x, y api.Standing) int { return x.Since.Compare(y.Since) })
	return all
}

func (h *Handler) status() api.Block {
	s := api.Block{Name: h.Name, Delivery: api.ByTheRoute, Queued: h.Queue != nil, Upstreams: []api.Upstream{}}
	if h.proxy == nil {
		return s
	}
	if s.Delivery, s.Why = api.Directly, h.proxy.Why; s.Why != "" {
		s.Delivery = api.ThroughIt
	}
	for _, up := range h.proxy.Upstreams() {
		s.Upstreams = append(s.Upstreams, h.upstream(up))
	}
	return s
}

// lastAlerts returns the last alerts, from all configs.
func (a *App) lastAlerts() []api.Alert {
	all := []api.Alert{}
	for _, told := range a.operator.desk.Told() {
		told.At = told.At.UTC()
		if !told.Failing.IsZero() {
			told.Failing = told.Failing.UTC()
		}
		all = append(all, api.Alert(told))
	}
	return all
}

// warnings returns what was said at load.
func (a *App) warnings() []api.Warning {
	if said := a.said.Load(); said != nil {
		return *said
	}
	return []api.Warning{}
}

// warnAtLoad logs what this config may lose or expose, and remembers it.
func (a *App) warnAtLoad() {
	said := []api.Warning{}
	for _, found := range append(a.findings(), a.smallShares()...) {
		a.logger.Warn(found.Message, found.Fields...)
		fields := zapcore.NewMapObjectEncoder()
		for _, field := range found.Fields {
			field.AddTo(fields)
		}
		for name, value := range fields.Fields {
			if d, is := value.(time.Duration); is {
				fields.Fields[name] = d.String()
			}
		}
		said = append(said, api.Warning{Message: found.Message, Fields: fields.Fields})
	}
	a.said.Store(&said)
}

// upstream returns the state of a handler.
func (h *Handler) upstream(up proxy.Upstream) api.Upstream {
	f := h.fleet.Figures(up.Address)
	s := api.Upstream{
		Address: up.Address, NumRequests: up.NumRequests, Limit: up.Limit, Fails: up.Fails, Healthy: up.Healthy,
		InHand: f.InHand, Taken: f.Taken, NotTaken: f.NotTaken, LastAsked: f.Asked.UTC(), Until: f.Until.UTC(), Why: f.Why, P50: f.P50, P99: f.P99,
	}
	if f.Trend != nil {
		s.Trend = &api.Trend{Seconds: int(f.Trend.Slot / time.Second), Until: f.Trend.Until, Taken: f.Trend.Taken, NotTaken: f.Trend.NotTaken}
	}
	if f.Fault != nil {
		s.LastFault = &api.Fault{At: f.Fault.At.UTC(), Reason: f.Fault.Reason, Status: f.Fault.Status, Error: f.Fault.Error}
	}
	return s
}

// Interface guards
var _ caddy.AdminRouter = (*AdminAPI)(nil)

// health returns whether this process is ready for notifications. While the first config starts and while
// the last one stops, no config is in effect; then the operator, which an app holds, shows that there is
// one.
func health() (h api.Health) {
	app := activeApp()
	_, held := operators.References(theOperator)
	switch {
	case app != nil:
		h = app.health()
	case held && !caddy.Exiting():
		h.Reasons = []api.Unready{api.Starting}
	case !caddy.Exiting():
		h.Reasons = []api.Unready{api.NotConfigured}
	}
	if caddy.Exiting() {
		h.Reasons = append(h.Reasons, api.Ending)
	}
	return h
}

// health returns whether this config is ready for notifications.
func (a *App) health() (h api.Health) {
	h.Config = a.fingerprint()
	if a.loaded.IsZero() {
		h.Reasons = append(h.Reasons, api.Starting)
		return h
	}
	h.Loaded = a.loaded.UTC().Format(time.RFC3339Nano)
	if !a.quarantineOpen() {
		h.Reasons = append(h.Reasons, api.QuarantineClosed)
	}
	if a.queued {
		if d := a.queue.dispatcher.Load(); d != nil && d.Control().Draining {
			h.Reasons = append(h.Reasons, api.QueueDraining)
		}
	}
	return h
}

// quarantineOpen reports whether entries can be read. A file that looks damaged stays closed for a minute.
func (a *App) quarantineOpen() bool {
	store, release, err := a.openQuarantine()
	if err != nil {
		return false
	}
	defer release()
	_, err = store.Get("") // no entry has that id
	return errors.Is(err, quarantine.ErrNotFound)
}

// fingerprint returns a digest of the app and its blocks as they were loaded. Two configs have the same one
// if they do not differ in anything about green_api.
func (a *App) fingerprint() string {
	sum := sha256.New()
	_, _ = sum.Write(a.config) // never fails
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		fmt.Fprintf(sum, "\n%s", a.blocks[name].config) // JSON, which has no line end in it
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// fit returns whether an instance's webhookUrl and webhookUrlToken fit this config.
func (a *App) fit(instance, webhookURL, secret string) (f api.Fit) {
	f.Instance = instance
	id := notification.SameInstance(instance)
	receiving := a.receiverOf(id)
	switch {
	case receiving != "":
		f.Block = receiving
		if webhookURL != "" {
			f.Findings = append(f.Findings, api.Received)
		}
		return f
	case webhookURL == "":
		f.Findings = append(f.Findings, api.NoURL)
		return f
	}
	target, err := url.Parse(webhookURL)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		f.Findings = append(f.Findings, api.BadURL)
		return f
	}
	if target.Scheme == "http" && !isLocal(target.Hostname()) {
		f.Findings = append(f.Findings, api.HTTPURL)
	}
	h := a.blockAt(target)
	if h == nil {
		f.Findings = append(f.Findings, api.NoBlock)
		return f
	}
	f.Block = h.Name
	if why := h.Auth.unfit(id, secret); why != "" {
		f.Findings = append(f.Findings, api.Unfit(why))
	}
	return f
}

// receiverOf returns the name of the block that receives an instance from the HTTP API, "" if none does.
func (a *App) receiverOf(instance string) string {
	for name, b := range a.blocks {
		if b.handler.receives(instance) {
			return name
		}
	}
	return ""
}

// blockAt returns the block that a notification posted to a URL reaches, nil if none. The port is not
// compared, because another proxy may be in front.
func (a *App) blockAt(target *url.URL) *Handler {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	isBlock := func(handler caddyhttp.MiddlewareHandler) bool { _, is := handler.(*Handler); return is }
	for _, server := range app.(*caddyhttp.App).Servers {
		if h, ok := doctor.WayTo(server, target, address.Vendor()[0].Addr(), isBlock).Block.(*Handler); ok {
			return h
		}
	}
	return nil
}

// unfit returns why the gate would refuse notifications of an instance with this token in the console, ""
// if it would not. With report_only, it returns why the gate will refuse them.
func (a *Auth) unfit(instance, secret string) reason.Reason {
	header := make(http.Header)
	if secret != "" {
		header.Set("Authorization", sentAs(secret))
	}
	switch a.worth(header) {
	case outcome.TokenOff:
		return ""
	case outcome.TokenNone:
		return reason.NoToken
	case outcome.TokenWrong:
		return reason.BadToken
	}
	if !a.set.Load().Admits(header, instance) {
		return reason.InstanceNotAllowed
	}
	return ""
}

// sentAs returns the header in which GREEN-API sends the token from the console. How it sends text that is
// not a token is unknown; such text is not a token here either.
func sentAs(secret string) string {
	scheme, text, ok := token.Split(secret)
	if !ok {
		return secret
	}
	return strings.ToUpper(scheme[:1]) + scheme[1:] + " " + text
}
