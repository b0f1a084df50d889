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
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/console"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/backlog"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/drain"
	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/queue"
)

func init() {
	caddy.RegisterModule(App{})
}

// defaultName is the name of a green_api block that does not set one.
const defaultName = "default"

// App holds what all green_api handlers of a config share.
type App struct {
	// Where notifications are kept that cannot be given to a handler. They are on disk before the sender is
	// answered.
	Quarantine *Quarantine `json:"quarantine,omitempty"`

	// The engine that keeps the queues of all blocks that have one. Default: `bbolt`, in the quarantine's
	// directory.
	QueueRaw json.RawMessage `json:"queue,omitempty" caddy:"namespace=green_api.queues inline_key=engine"`

	// Where the operator is alerted when something goes wrong. Default: nowhere; it is only logged.
	Alerts []*Alert `json:"alert,omitempty"`

	// What is counted beyond the default.
	Metrics *Metrics `json:"metrics,omitempty"`

	logger   *zap.Logger
	events   *caddyevents.App
	operator *operator
	consoles []*Console
	shared   *sharedQuarantine
	engine   queue.Engine
	queue    *sharedQueue // of the engine's Key
	queued   bool         // a block has a queue
	watching bool         // the queue is watched
	diskFree func(dir string) (int64, error)
	held     bool            // this config holds its share of the quarantine
	running  context.Context // until stop is called
	stop     context.CancelFunc
	ending   context.Context // until this config is about to be stopped
	leave    context.CancelFunc
	config   []byte                         // as it was loaded
	loaded   time.Time                      // when this config took effect
	said     *atomic.Pointer[[]api.Warning] // at load
	unheard  *time.Timer                    // complains if Caddy does not report that it has started

	blocks    map[string]block    // by name
	receives  map[string]*Receive // by instance
	receiving bool                // this config uses the receivers
	grace     time.Duration       // for work in hand when the process exits
	ctx       caddy.Context
	drain     *drain.Drain
	store     *lease.Store // in Caddy's storage, for the leases
}

// Metrics sets what is counted beyond the default.
type Metrics struct {
	// Counts the notifications of each instance that has its own tokens in the config. Default: false.
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

// Provision checks the settings. It touches no file, because a config may be provisioned only to validate
// it while a server is running.
func (a *App) Provision(ctx caddy.Context) error {
	var err error
	if a.config, err = json.Marshal(a); err != nil {
		return err
	}
	a.ctx, a.logger = ctx, ctx.Logger()
	a.store = lease.NewStore(ctx.Storage())
	a.said = new(atomic.Pointer[[]api.Warning])
	a.blocks = make(map[string]block)
	a.receives = make(map[string]*Receive)
	a.drain = drain.New()
	a.ending, a.leave = context.WithCancel(context.Background())
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
	if err := a.operator.desk.Register(ctx.GetMetricsRegistry(), a.perInstance(), false); err != nil {
		return err
	}
	a.shared, a.held = holdQuarantine(a.Quarantine.Path), true // the file stays closed until Start
	if err := a.provisionQueue(ctx); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	a.events = events.(*caddyevents.App)
	return errors.Join(a.events.On("started", hearing{a}), a.events.On("stopping", hearing{a}))
}

// Start opens the quarantine. If the path is the same, it is shared with the previous config.
func (a *App) Start() error {
	for _, c := range a.consoles {
		if err := c.open(); err != nil {
			return err
		}
	}
	if _, err := a.shared.Open(); err != nil {
		return fmt.Errorf("quarantine: %w", a.Quarantine.hide(err))
	}
	if err := a.openQueue(); err != nil {
		return err
	}
	a.running, a.stop = context.WithCancel(context.Background())
	go a.watchSilence(a.running)
	a.awaitStarted()
	return nil
}

// startedWithin is how long a config's apps may take to start.
const startedWithin = 30 * time.Second

// awaitStarted complains if Caddy's event `started` does not arrive. Caddy calls its events experimental;
// without this one, nothing would be received from the HTTP API, no alert sent and no quarantine entry
// expired.
func (a *App) awaitStarted() {
	a.unheard = time.AfterFunc(startedWithin, func() {
		a.logger.Error("Caddy does not say that the config has started", zap.Duration("after", startedWithin))
		a.drain.Begin()
	})
}

func (a *App) perInstance() bool { return a.Metrics != nil && a.Metrics.PerInstance }

// hearing subscribes to events for an app. Caddy logs the subscriber of an event with all its exported
// fields. For the app itself those would be its settings, with placeholders resolved.
type hearing struct{ app *App }

// Handle handles an event.
func (h hearing) Handle(ctx context.Context, event caddy.Event) error {
	return h.app.Handle(ctx, event)
}

// Handle learns from Caddy that all apps of this config have started, or that the config is about to stop.
func (a *App) Handle(_ context.Context, event caddy.Event) error {
	if event.Name() == "stopping" {
		a.leave()
	}
	switch {
	case event.Name() == "started":
		a.takeOver()
		if !caddy.Exiting() { // otherwise leave them to the next process
			a.drain.Begin()
		}
	case caddy.Exiting():
		// This comes before any app is stopped: the http app, for one, waits for its requests.
		receivers.End() // at the same time as the HTTP server
		a.queue.stop()
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

// takeOver puts this config into effect. It runs once every app has started, so a config that fails to
// start never gets here.
func (a *App) takeOver() {
	a.unheard.Stop()
	a.loaded = time.Now()
	a.operator.activity.Note(api.Action{At: a.loaded.UTC(), Action: api.Reloaded})
	for _, b := range a.blocks { // from now on, notifications in flight go through its handlers
		b.handler.warnOfOther(b.handler.fleet.newest.Load())
		b.handler.fleet.newest.Store(b.handler)
		b.handler.tellWay(a.logger)
	}
	a.warnAtLoad()
	a.useQueue()
	a.operator.quarantineLimit.Store(a.Quarantine.MaxSize)
	a.operator.desk.Configure(a.endpoints(), a.logger)
	go a.watchDisk(a.running)
	go a.expiry().Run(a.running, a.shared.Stats().WipeDue) // started here because it may have something to report
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		a.grace = time.Duration(app.(*caddyhttp.App).GracePeriod)
	}
	a.startReceivers()
}

// Stop stops receiving from the HTTP API. When the process exits, it waits for work in hand, as the http
// app does. Everything else continues, as requests may still be in flight.
func (a *App) Stop() error {
	a.stopReceivers()
	if caddy.Exiting() {
		receivers.Await(cmp.Or(a.grace, senderTimeout))
		a.queue.end(a.queueGrace())
	}
	return nil
}

// Cleanup releases what this config holds.
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
	if a.queue != nil {
		a.giveQueueBack()
		err = errors.Join(err, releaseQueue(a.engine.Key()))
	}
	if a.operator != nil {
		err = errors.Join(err, releaseOperator())
	}
	return err
}

// claim registers a block under its name. The same block may come twice, for example if its site listens on
// two ports.
func (a *App) claim(h *Handler, config []byte) error {
	if other, taken := a.blocks[h.Name]; taken && !bytes.Equal(other.config, config) {
		return fmt.Errorf("name: %q is the name of two green_api blocks that differ; give one of them another 'name'", h.Name)
	}
	a.blocks[h.Name] = block{h, config}
	return nil
}

// tellOperator sends a note to the operator, if a config has green_api in it.
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
//	    queue [<engine>] {
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
		{name: "queue", parse: func() error {
			engine, name, err := unmarshalQueue(d)
			if err == nil {
				a.QueueRaw = caddyconfig.JSONModuleObject(engine, "engine", name, nil)
			}
			return err
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

// State that outlives a config. This is all the mutable state that the plugin has at package level.
//
// A reload works like this. Provision of the new config takes a share in the same entries (join,
// holdQuarantine, holdOperator). It opens no file and changes nothing, because a config may be provisioned
// only to validate it. Start opens the quarantine unless it is open. When Caddy reports that everything has
// started, takeOver puts the config into effect: new attempts of all notifications go through its handlers,
// its alerts replace the old ones, and its receivers continue where the old ones are. Then Caddy tells the
// old config that it is stopping: its connections are drained, and Stop and Cleanup release its share. A
// config that fails to start never reaches takeOver, and its Cleanup leaves everything as it was. The last
// holder of an entry closes it, which may be a notification in flight.
//
// When the process exits, Caddy tells the last config the same, but nothing takes over: notifications that
// only wait are answered, receivers finish what they have in hand, and alerts are sent as long as time
// allows.
var (
	// fleets, by block name: notifications in flight, and what is remembered of earlier ones.
	fleets = caddy.NewUsagePool()

	// quarantines, by path.
	quarantines = caddy.NewUsagePool()

	// queues, by the key of the engine: the store, and what delivers from it.
	queues = caddy.NewUsagePool()

	// operators has a single entry: the counters, and what the operator is told.
	operators = caddy.NewUsagePool()

	// copies of followed files in effect, by kind and path.
	copies = caddy.NewUsagePool()

	// loads counts the requests in flight at each handler that go directly.
	loads = proxy.NewLoads()

	// receivers of the HTTP API, one per instance.
	receivers = receiver.New(receiver.DefaultTimes(), lease.NewEdge(lease.DefaultTimes()))

	// exiting is closed when the process is about to exit, so that waiting ends.
	exiting     = make(chan struct{})
	stopWaiting = sync.OnceFunc(func() { close(exiting) })

	// examining, while the doctor examines a config, is called with its app before that is cleaned up: Caddy
	// does not hand out the apps of a config that it does not start.
	examining atomic.Pointer[func(*App)]
)

// operator is what the operator is shown and told, across reloads.
type operator struct {
	desk    *tell.Desk
	seen    watch.Instances
	daily   watch.Daily
	clock   quarantine.WallClock
	silent  watch.Silences
	refused watch.Refusals
	disk    watch.Disk
	backlog backlog.Watch

	replays api.Replays
	streams api.Streams

	activity api.Activity
	sessions *console.Sessions // of the consoles

	quarantineLimit atomic.Int64  // max_size of the config in effect
	diskFree        atomic.Uint64 // bytes free on the quarantine's disk, as the bits of a float64
}

// heard records that an instance has sent something, which may end its silence, and that it is refused.
func (o *operator) heard(instance string, at time.Time) {
	o.refused.Let(instance, at)
	if o.silent.Saw(instance, at) {
		o.desk.Tell(outcome.Note{Reason: reason.Recovered, Instance: instance, More: "Notifications come again.", At: at, Trouble: silenceOf(instance)})
	}
}

const theOperator = "operator"

func newOperator(times tell.Times) *operator {
	o := &operator{desk: tell.NewDesk(gauges(), times, nil), sessions: console.NewSessions()}
	o.diskFree.Store(math.Float64bits(math.NaN()))
	return o
}

// gauges returns the gauges, which are read whenever the metrics are collected.
func gauges() tell.Gauges {
	g := tell.Gauges{
		Waiting:            func() float64 { return float64(waitingNotifications()) },
		QuarantineEntries:  func() float64 { return float64(quarantineStats().Entries) },
		QuarantineBytes:    func() float64 { return float64(quarantineStats().Bytes) },
		QuarantineMaxBytes: func() float64 { return float64(quarantineLimit()) },
		QuarantineFree:     quarantineFree,
		Receivers:          make(map[string]func() float64),
		Queue:              queueGauges,
	}
	for _, state := range []string{receiver.Receiving, receiver.Standby, receiver.Failing} {
		g.Receivers[state] = func() float64 { return float64(receivers.Count(state)) }
	}
	return g
}

// waitingNotifications returns how many notifications wait for a handler.
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

// quarantineFree returns how many bytes are free on the quarantine's disk, NaN if unknown.
func quarantineFree() float64 {
	free := math.NaN()
	operators.Range(func(_, value any) bool {
		free = math.Float64frombits(value.(*operator).diskFree.Load())
		return true
	})
	return free
}

// Destruct sends the remaining alerts, at the end of the process or of the last config with green_api in
// it.
func (o *operator) Destruct() error {
	o.desk.Close()
	return nil
}

// fleet is what the blocks of one name share across reloads: their handlers, and which block is the newest.
type fleet struct {
	*delivery.Fleet
	newest  atomic.Pointer[Handler] // of the config in effect; nil before it takes effect and after it ends
	failing watch.Handlers
	slow    watch.Handlers // those that keep a sender waiting
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
