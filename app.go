package greenapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/drain"
	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func init() {
	caddy.RegisterModule(App{})
}

// defaultName is the name of a green_api block that says none.
const defaultName = "default"

// App is what all green_api handlers of a config share.
type App struct {
	// Where notifications are kept that no handler can be given. They are on disk before the
	// sender is answered.
	Quarantine *Quarantine `json:"quarantine,omitempty"`

	// Where the operator is told of what went wrong. Default: nowhere but in the log.
	Alerts []*Alert `json:"alert,omitempty"`

	// What is counted beyond the default.
	Metrics *Metrics `json:"metrics,omitempty"`

	logger   *zap.Logger
	events   *caddyevents.App
	operator *operator
	shared   *sharedQuarantine
	diskFree func(dir string) (int64, error)
	held     bool            // this config's share in the quarantine
	running  context.Context // until stop
	stop     context.CancelFunc
	config   []byte      // as it was loaded
	loaded   time.Time   // when this config came into effect
	unheard  *time.Timer // complains if Caddy does not say that it has started

	blocks    map[string]block    // by name
	receives  map[string]*Receive // by instance
	receiving bool                // this config's share in the receivers
	grace     time.Duration       // for what is in hand at the end of the process
	ctx       caddy.Context
	drain     *drain.Drain
	store     *lease.Store // Caddy's, for the leases
}

// Metrics says what is counted beyond the default.
type Metrics struct {
	// Counts the notifications of each instance that has tokens of its own in the config.
	// Default: false.
	PerInstance bool `json:"per_instance,omitempty"`
}

// block is a green_api block of the config.
type block struct {
	handler *Handler
	config  []byte
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "green_api",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision checks the settings. It touches no file: a config is also provisioned to be validated,
// beside a server that runs.
func (a *App) Provision(ctx caddy.Context) error {
	var err error
	if a.config, err = json.Marshal(a); err != nil {
		return err
	}
	a.ctx, a.logger = ctx, ctx.Logger()
	a.store = lease.NewStore(ctx.Storage())
	a.blocks = make(map[string]block)
	a.receives = make(map[string]*Receive)
	a.drain = drain.New()
	a.diskFree = quarantine.Free
	if a.Quarantine == nil {
		a.Quarantine = new(Quarantine)
	}
	if err := a.Quarantine.provision(); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	for i, alert := range a.Alerts {
		if err := alert.provision(); err != nil {
			return fmt.Errorf("alert %d: %w", i+1, err)
		}
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	a.operator = holdOperator()
	if err := a.operator.desk.Register(ctx.GetMetricsRegistry(), a.perInstance()); err != nil {
		return err
	}
	a.shared, a.held = holdQuarantine(a.Quarantine.Path), true // its file stays shut until Start
	a.events = events.(*caddyevents.App)
	return errors.Join(a.events.On("started", hearing{a}), a.events.On("stopping", hearing{a}))
}

// Start opens the quarantine, which is shared with the config that ran before if the path is the
// same.
func (a *App) Start() error {
	if _, err := a.shared.Open(); err != nil {
		return fmt.Errorf("quarantine: %w", a.Quarantine.hide(err))
	}
	a.running, a.stop = context.WithCancel(context.Background())
	go a.watchSilence(a.running)
	a.awaitStarted()
	return nil
}

// startedWithin is how long the apps of a config may take to start.
const startedWithin = 30 * time.Second

// awaitStarted complains if Caddy's event `started` does not come. Caddy calls its events
// experimental, and without this one nothing would be received, nobody alerted, and nothing of the
// quarantine expire.
func (a *App) awaitStarted() {
	a.unheard = time.AfterFunc(startedWithin, func() {
		a.logger.Error("Caddy does not say that the config has started", zap.Duration("after", startedWithin))
		a.drain.Begin()
	})
}

func (a *App) perInstance() bool { return a.Metrics != nil && a.Metrics.PerInstance }

// hearing hears events for an app. Caddy logs who hears an event, with all that can be shown of it:
// of the app that would be its settings, with what placeholders stand for.
type hearing struct{ app *App }

// Handle hears an event.
func (h hearing) Handle(ctx context.Context, event caddy.Event) error {
	return h.app.Handle(ctx, event)
}

// Handle hears that all apps of this config have started, and that it is about to be stopped.
func (a *App) Handle(_ context.Context, event caddy.Event) error {
	switch {
	case event.Name() == "started":
		a.takeOver()
		if !caddy.Exiting() { // else the next process does better
			a.drain.Begin()
		}
	case caddy.Exiting():
		// Before any app is stopped: the app http, for one, waits for its requests.
		receivers.End() // together with the HTTP server
		if a.drain.Rest() {
			a.drain.Wait()
		}
		stopWaiting()
	default:
		a.drain.Rest()
		a.drain.Wait()
	}
	return nil
}

// takeOver puts this config into effect. It runs once every app has started, so that a config that fails
// to start never gets here.
func (a *App) takeOver() {
	a.unheard.Stop()
	a.loaded = time.Now()
	for _, b := range a.blocks { // notifications on their way go through its handlers from now on
		b.handler.warnOfOther(b.handler.fleet.newest.Load())
		b.handler.fleet.newest.Store(b.handler)
	}
	for _, found := range a.findings() {
		a.logger.Warn(found.Message, found.Fields...)
	}
	a.warnOfSmallShares()
	a.operator.quarantineLimit.Store(a.Quarantine.MaxSize)
	a.operator.desk.Configure(a.endpoints(), a.logger)
	go a.watchDisk(a.running)
	go a.expiry().Run(a.running, a.shared.Stats().WipeDue) // not before there is somebody to tell
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		a.grace = time.Duration(app.(*caddyhttp.App).GracePeriod)
	}
	a.startReceivers()
}

// Stop ends what is received from the HTTP API; at the end of the process it waits for what is in hand,
// as the app http does. All else goes on: requests may still be in flight.
func (a *App) Stop() error {
	a.stopReceivers()
	if caddy.Exiting() {
		receivers.Await(cmp.Or(a.grace, senderTimeout))
	}
	return nil
}

// Cleanup gives up what this config holds.
func (a *App) Cleanup() error {
	if a.stop != nil {
		a.stop()
	}
	if a.unheard != nil {
		a.unheard.Stop()
	}
	a.stopReceivers() // Stop is not called if the config fails late
	if look := examining.Load(); look != nil {
		(*look)(a)
	}
	var err error
	if a.held {
		a.held = false
		err = releaseQuarantine(a.Quarantine.Path)
	}
	if a.operator != nil {
		err = errors.Join(err, releaseOperator())
	}
	return err
}

// claim enters a block under its name. The same block may come twice, as when its site listens on
// two ports.
func (a *App) claim(h *Handler, config []byte) error {
	if other, taken := a.blocks[h.Name]; taken && !bytes.Equal(other.config, config) {
		return fmt.Errorf("name: %q is the name of two green_api blocks that differ; give one of them another 'name'", h.Name)
	}
	a.blocks[h.Name] = block{h, config}
	return nil
}

// tellOperator tells the operator, if there is a green_api in the config.
func tellOperator(n outcome.Note) {
	operators.Range(func(_, value any) bool {
		value.(*operator).desk.Tell(n)
		return true
	})
}

// unmarshalCaddyfile sets up the app from the global option. Syntax:
//
//	green_api {
//	    quarantine [<directory>] {
//	        ...
//	    }
//	    alert <url> {
//	        ...
//	    }
//	    metrics {
//	        per_instance
//	    }
//	}
func (a *App) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := noArgs(d); err != nil {
		return err
	}
	return eachOption(d, "green_api", []option{
		{name: "quarantine", parse: func() error {
			a.Quarantine = new(Quarantine)
			return a.Quarantine.unmarshalCaddyfile(d)
		}},
		{name: "alert", repeats: true, parse: func() error {
			alert := new(Alert)
			a.Alerts = append(a.Alerts, alert)
			return alert.unmarshalCaddyfile(d)
		}},
		{name: "metrics", parse: func() error {
			if err := noArgs(d); err != nil {
				return err
			}
			a.Metrics = new(Metrics)
			return eachOption(d, "metrics", []option{
				{name: "per_instance", parse: func() error { return flagArg(d, &a.Metrics.PerInstance) }},
			})
		}},
	})
}

// What outlives a config. This is all the mutable state that the plugin has at package level.
//
// A reload goes like this. Provision of the new config takes hold of the same entries (join, holdQuarantine,
// holdOperator); it opens no file and changes nothing, as a config is also provisioned to be validated.
// Start opens the quarantine, if it is not open. When Caddy says that everything has started, takeOver puts
// the config into effect: new attempts of all notifications go through its handlers, its alerts replace the
// old ones, its receivers go on where the old ones are. Then Caddy tells the old config that it is stopping:
// its connections are drained, and Stop and Cleanup give up its share. A config that fails to start never
// comes to takeOver, and its Cleanup leaves everything as it was. Whoever lets an entry go last closes it,
// which may be a notification in flight.
//
// At the end of the process Caddy tells the last config the same, and nothing takes over: notifications that
// only wait are answered, receivers end with what they have in hand, alerts are sent as far as there is time.
var (
	// fleets by the name of their blocks: notifications on their way, and what is remembered of others.
	fleets = caddy.NewUsagePool()

	// quarantines by path.
	quarantines = caddy.NewUsagePool()

	// operators has one entry: what is counted and told.
	operators = caddy.NewUsagePool()

	// copies of followed files that are in effect, by kind and path.
	copies = caddy.NewUsagePool()

	// receivers of the HTTP API, one for each instance.
	receivers = receiver.New(receiver.DefaultTimes(), lease.NewEdge(lease.DefaultTimes()))

	// exiting is closed when the process is about to end, for what only waits.
	exiting     = make(chan struct{})
	stopWaiting = sync.OnceFunc(func() { close(exiting) })
)

// operator is what the operator wants to know, and is told, across reloads.
type operator struct {
	desk   *tell.Desk
	seen   watch.Instances
	daily  watch.Daily
	clock  quarantine.WallClock
	silent watch.Silences
	disk   watch.Disk

	replays api.Replays

	quarantineLimit atomic.Int64  // max_size of the config in effect
	diskFree        atomic.Uint64 // bytes free on the quarantine's disk, a float64 in its bits
}

// heard notes that something came from an instance, which may end its silence.
func (o *operator) heard(instance string, at time.Time) {
	if o.silent.Saw(instance, at) {
		o.desk.Tell(outcome.Note{Reason: reason.Recovered, Instance: instance, More: "Notifications come again.", At: at, Trouble: silenceOf(instance)})
	}
}

const theOperator = "operator"

func newOperator(times tell.Times) *operator {
	o := &operator{desk: tell.NewDesk(gauges(), times, nil)}
	o.diskFree.Store(math.Float64bits(math.NaN()))
	return o
}

// gauges are what the metrics show of the moment.
func gauges() tell.Gauges {
	g := tell.Gauges{
		Waiting:            func() float64 { return float64(waitingNotifications()) },
		QuarantineEntries:  func() float64 { return float64(quarantineStats().Entries) },
		QuarantineBytes:    func() float64 { return float64(quarantineStats().Bytes) },
		QuarantineMaxBytes: func() float64 { return float64(quarantineLimit()) },
		QuarantineFree:     quarantineFree,
		Receivers:          make(map[string]func() float64),
	}
	for _, state := range []string{receiver.Receiving, receiver.Standby, receiver.Failing} {
		g.Receivers[state] = func() float64 { return float64(receivers.Count(state)) }
	}
	return g
}

// waitingNotifications is how many wait for a handler.
func waitingNotifications() (n int) {
	fleets.Range(func(_, value any) bool {
		n += value.(*fleet).Waits()
		return true
	})
	return n
}

func holdOperator() *operator {
	shared, _, _ := operators.LoadOrNew(theOperator, func() (caddy.Destructor, error) { // never fails
		return newOperator(tell.DefaultTimes()), nil
	})
	return shared.(*operator)
}

func releaseOperator() error {
	_, err := operators.Delete(theOperator)
	return err
}

// quarantineLimit returns the max_size of the config in effect, 0 if there is none.
func quarantineLimit() (limit int64) {
	operators.Range(func(_, value any) bool {
		limit = value.(*operator).quarantineLimit.Load()
		return true
	})
	return limit
}

// quarantineFree returns how many bytes are free on the quarantine's disk, NaN if that is not known.
func quarantineFree() float64 {
	free := math.NaN()
	operators.Range(func(_, value any) bool {
		free = math.Float64frombits(value.(*operator).diskFree.Load())
		return true
	})
	return free
}

// Destruct sends what is left to tell, at the end of the process or of the last config with a
// green_api in it.
func (o *operator) Destruct() error {
	o.desk.Close()
	return nil
}

// fleet is what the blocks of one name share across reloads: their handlers, and which block is the
// newest.
type fleet struct {
	*delivery.Fleet
	newest  atomic.Pointer[Handler] // of the config in effect; nil before it is and after its end
	failing watch.Handlers
	slow    watch.Handlers // those that let a sender wait
	drift   watch.Drifts
}

func holdFleet(name string) *fleet {
	shared, _, _ := fleets.LoadOrNew(name, func() (caddy.Destructor, error) { // never fails
		return &fleet{Fleet: delivery.NewFleet(exiting)}, nil
	})
	return shared.(*fleet)
}

func releaseFleet(name string) error {
	_, err := fleets.Delete(name)
	return err
}

// Destruct has nothing to close: notifications still in flight keep the fleet in memory.
func (*fleet) Destruct() error { return nil }

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = (*App)(nil)
)
