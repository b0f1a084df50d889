package greenapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/backlog"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/bolt"
)

func init() {
	caddy.RegisterModule(BoltQueue{})
}

const (
	defaultMaxQueue = 1 << 30
	minMaxQueue     = 1 << 20 // with less, the file's own pages leave little room
)

// BoltQueue keeps the queue in one file of its own, on one disk. Only one Caddy process may use it at a time.
type BoltQueue struct {
	// Directory, created if missing. Default: the quarantine's.
	Path string `json:"path,omitempty"`

	// Maximum size in bytes. What comes when it is full waits for room, and is answered 503 if there is none within
	// 170 seconds. Default: 1 GiB.
	MaxSize int64 `json:"max_size,omitempty"`

	said string // the path as in the config, for logs and errors
}

// CaddyModule returns the Caddy module information.
func (BoltQueue) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "green_api.queues.bbolt", New: func() caddy.Module { return new(BoltQueue) }}
}

// Provision checks the settings. It touches no file.
func (b *BoltQueue) Provision(caddy.Context) error {
	b.MaxSize = cmp.Or(b.MaxSize, defaultMaxQueue)
	if b.MaxSize < minMaxQueue {
		return fmt.Errorf("max_size: %d bytes are too few; want 1MiB or more", b.MaxSize)
	}
	if b.Path == "" {
		return nil // App.Provision sets it
	}
	b.said = b.Path
	path, err := resolve(b.Path)
	if err != nil {
		return err
	}
	b.Path, err = filepath.Abs(path)
	return err
}

// Key identifies the file.
func (b *BoltQueue) Key() string { return "bbolt " + b.Path }

// Open opens the file, and creates it if it is missing.
func (b *BoltQueue) Open() (queue.Store, error) {
	store, err := bolt.Open(b.Path, b.MaxSize)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// hide removes the path from an error if the config has a placeholder for it.
func (b *BoltQueue) hide(err error) error { return hidePath(err, b.said, b.Path) }

// Stored reports whether the file exists.
func (b *BoltQueue) Stored() bool {
	_, err := os.Stat(filepath.Join(b.Path, bolt.FileName))
	return !errors.Is(err, fs.ErrNotExist)
}

// Apply sets the maximum size of an open file.
func (b *BoltQueue) Apply(store queue.Store) { store.(*bolt.Store).SetMaxSize(b.MaxSize) }

// UnmarshalCaddyfile sets up the engine from Caddyfile tokens. Syntax:
//
//	queue [bbolt [<directory>]] {
//	    max_size <size>
//	}
func (b *BoltQueue) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // queue or bbolt
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		b.Path = args[0]
	default:
		return d.Err("queue bbolt: want one directory, or none for the quarantine's")
	}
	return eachOption(d, "queue", []option{
		{name: "max_size", parse: func() error { return sizeArg(d, &b.MaxSize) }},
	})
}

// unmarshalQueue parses the global option `queue`, which chooses the engine and returns its settings.
func unmarshalQueue(d *caddyfile.Dispenser) (queue.Engine, string, error) {
	name := "bbolt"
	if d.CountRemainingArgs() > 0 {
		d.NextArg()
		name = d.Val()
	}
	id := "green_api.queues." + name
	if _, err := caddy.GetModule(id); err != nil {
		var known []string
		for _, module := range caddy.GetModules("green_api.queues") {
			known = append(known, module.ID.Name())
		}
		return nil, "", d.Errf("queue: there is no engine '%s' in this program; want %s", name, anyOf(known))
	}
	module, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return nil, "", err
	}
	engine, ok := module.(queue.Engine)
	if !ok {
		return nil, "", d.Errf("module %s is no engine of a queue", id)
	}
	return engine, name, nil
}

// sharedQueue is an entry of queues: a store and its dispatcher, which live on when a config is replaced.
type sharedQueue struct {
	app   atomic.Pointer[App] // of the config in effect; nil before there is one
	clock quarantine.WallClock
	doubt atomic.Bool // the operator has been told that the clock was set

	dispatcher atomic.Pointer[queue.Dispatcher] // nil until the store is open
	looked     atomic.Bool                      // whether there is one to open
	said       atomic.Value                     // where it is, as in the config

	mu      sync.Mutex
	store   queue.Store // nil until open
	exiting time.Time   // since when no delivery may begin; zero before the process is about to exit
}

func holdQueue(key string) *sharedQueue {
	shared, _, _ := queues.LoadOrNew(key, func() (caddy.Destructor, error) { return new(sharedQueue), nil }) // never fails
	return shared.(*sharedQueue)
}

func releaseQueue(key string) error {
	_, err := queues.Delete(key)
	return err
}

// open opens the store unless it is open. Nothing is delivered before a config takes effect.
func (q *sharedQueue) open(engine queue.Engine) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.store != nil {
		return nil
	}
	store, err := engine.Open()
	if err != nil {
		return err
	}
	q.store = store
	q.inDoubt() // so that a change from now on is noticed
	d := queue.New(store, queue.Hooks{Deliver: q.deliver, Keep: q.keep, Failed: q.failed, InDoubt: q.inDoubt})
	d.Start()
	q.said.Store(saidOf(engine))
	q.dispatcher.Store(d)
	return nil
}

// apply applies those settings of an engine that may change while the store is open.
func (q *sharedQueue) apply(engine queue.Engine) {
	q.mu.Lock()
	defer q.mu.Unlock()
	engine.Apply(q.store)
}

// end waits until the deliveries under way have ended. No other begins. The limit counts from the moment when the
// process was about to exit, if it is: the http app may have waited for its requests meanwhile.
func (q *sharedQueue) end(most time.Duration) {
	d := q.dispatcher.Load()
	if d == nil {
		return
	}
	q.mu.Lock()
	if !q.exiting.IsZero() {
		most -= time.Since(q.exiting)
	}
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	d.Close(ctx)
}

// Destruct closes the store once no config holds it any longer.
func (q *sharedQueue) Destruct() error {
	q.end(queueCloseTimeout)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.store == nil {
		return nil
	}
	return q.store.Close()
}

// queueCloseTimeout is how long deliveries under way are waited for when a config no longer names the queue. At the
// end of the process, they have been waited for before that.
const queueCloseTimeout = 10 * time.Second

// deliver makes one round through the newest block of the name.
func (q *sharedQueue) deliver(d queue.Delivery) queue.Result {
	f := holdFleet(d.By)
	defer func() { _ = releaseFleet(d.By) }() // never fails
	h := f.newest.Load()
	if h == nil || h.proxy == nil {
		return queue.Result{Why: reason.NoHandler}
	}
	return h.round(d)
}

// keep puts a notification into the quarantine that will not be delivered.
func (q *sharedQueue) keep(d queue.Delivery, why queue.Fate) error {
	app := q.app.Load()
	if app == nil {
		return errNoConfig
	}
	c, end := backlog.CaseOf(d), outcome.ToQuarantine(reason.Reason(why))
	id, err := app.put(d.Block, &c, end)
	if err != nil {
		app.logger.Error("a notification that will not be delivered cannot be kept, it stays in the queue",
			append(tell.NotificationFields(&c), zap.String("reason", string(why)), zap.Error(err))...)
		return err
	}
	c.QuarantineID = id
	end.Fields = append(end.Fields, zap.String("quarantine_id", id), zap.Duration("queued_for", time.Since(d.Received)))
	if b, known := app.blocks[d.By]; known {
		b.handler.survive(func() {
			app.operator.seen.Add(c.N.Instance, end.Outcome, c.Started)
			b.handler.reporter.Record(&c, end, nil)
		})
		return nil
	}
	app.logger.Log(end.Level, "notification quarantined", tell.RecordFields(&c, end)...)
	return nil
}

var errNoConfig = errors.New("no config is in effect")

// failed tells the operator that the store failed.
func (q *sharedQueue) failed(err error) {
	app := q.app.Load()
	if app == nil {
		return
	}
	err = app.hideQueue(err)
	app.logger.Error("the queue's store fails", zap.Error(err))
	app.operator.desk.Tell(outcome.Note{Reason: reason.QueueUnavailable, Kind: notification.KindNone, Level: zap.ErrorLevel, More: err.Error() + ".", At: time.Now()})
}

// inDoubt reports whether the clock was changed so recently that ages say nothing.
func (q *sharedQueue) inDoubt() bool {
	shortest := defaultQueueMaxAge
	if app := q.app.Load(); app != nil {
		shortest = app.shortestMaxAge()
	}
	return q.clock.InDoubt(time.Now(), shortest)
}

// shortestMaxAge returns the shortest max_age of a queue, which a change of the clock harms first, but at least one that
// no pause of a virtual machine harms.
func (a *App) shortestMaxAge() time.Duration {
	shortest := defaultQueueMaxAge
	for _, b := range a.blocks {
		if q := b.handler.Queue; q != nil && q.MaxAge != maxAgeOff {
			shortest = min(shortest, time.Duration(q.MaxAge))
		}
	}
	return max(shortest, 20*time.Minute)
}

// watchClock notices that the clock was changed, and tells the operator once.
func (q *sharedQueue) watchClock(log *zap.Logger) {
	if doubt := q.inDoubt(); q.doubt.Swap(doubt) != doubt && doubt {
		log.Warn("the clock was set: nothing in the queue becomes too old in the next 48 hours, unless Caddy is restarted")
	}
}

// stop lets no further delivery begin, because the process is about to exit.
func (q *sharedQueue) stop() {
	q.mu.Lock()
	q.exiting = time.Now()
	q.mu.Unlock()
	if d := q.dispatcher.Load(); d != nil {
		d.End()
	}
}

// provisionQueue loads the engine.
func (a *App) provisionQueue(ctx caddy.Context) error {
	if a.QueueRaw == nil {
		a.QueueRaw = json.RawMessage(`{"engine":"bbolt"}`)
	}
	loaded, err := ctx.LoadModule(a, "QueueRaw")
	if err != nil {
		return err
	}
	engine, ok := loaded.(queue.Engine)
	if !ok {
		return fmt.Errorf("module %T is no engine of a queue", loaded)
	}
	if b, ours := engine.(*BoltQueue); ours && b.Path == "" {
		b.Path, b.said = a.Quarantine.Path, a.Quarantine.said
	}
	a.engine, a.queue = engine, holdQueue(engine.Key())
	return nil
}

// saidOf returns where an engine keeps the queue, as in the config.
func saidOf(engine queue.Engine) string {
	if b, ours := engine.(*BoltQueue); ours {
		return b.said
	}
	return engine.Key()
}

// hideQueue removes from an error of the queue what the config has a placeholder for.
func (a *App) hideQueue(err error) error {
	if b, ours := a.engine.(*BoltQueue); ours {
		return b.hide(err)
	}
	return err
}

// openedQueue returns the dispatcher, nil if there is no queue. A request may come before Start has been called.
func (a *App) openedQueue() (*queue.Dispatcher, error) {
	if d := a.queue.dispatcher.Load(); d != nil || a.queue.looked.Load() && !a.queued {
		return d, nil
	}
	err := a.openQueue()
	return a.queue.dispatcher.Load(), err
}

// openQueue opens the queue if a block has one, or if one had one before that may not be empty.
func (a *App) openQueue() error {
	defer a.queue.looked.Store(true)
	if !a.queued && !a.engine.Stored() {
		return nil
	}
	if err := a.queue.open(a.engine); err != nil {
		if a.queued {
			return fmt.Errorf("queue: %w", a.hideQueue(err))
		}
		a.logger.Error("the queue that the config had before cannot be opened, what is in it is not delivered", zap.Error(a.hideQueue(err)))
		return nil
	}
	return a.operator.desk.Register(a.ctx.GetMetricsRegistry(), a.perInstance(), true)
}

// useQueue lets the blocks of this config deliver what is in the queue.
func (a *App) useQueue() {
	d := a.queue.dispatcher.Load()
	if d == nil {
		return
	}
	a.queue.apply(a.engine)
	blocks := make(map[string]queue.Options)
	for name, b := range a.blocks {
		if b.handler.proxy == nil {
			continue
		}
		left := b.handler.Queue
		if left == nil { // the block had a queue before
			left = &Queue{MaxAge: maxAgeOff} // nothing says how old its notifications may become
			_ = left.provision()             // has only defaults otherwise
		}
		blocks[name] = left.options()
	}
	a.queue.app.Store(a)
	a.endDraining(d)
	a.sayWhatIsQueued(d)
	d.Configure(blocks)
	if !a.watching { // Caddy loads one config after another
		a.watching = true
		go a.watchQueue(a.running, d)
	}
}

// giveQueueBack ends that the blocks of this config deliver what is in the queue. If the config could not be loaded to
// the end, those of the config that stays in effect do so again, or for the first time if this config has opened the
// queue.
func (a *App) giveQueueBack() {
	a.queue.app.CompareAndSwap(a, nil)
	stays := activeApp()
	if stays == nil || stays == a || stays.queue != a.queue || a.queue.app.Load() != nil || caddy.Exiting() {
		return
	}
	for _, b := range stays.blocks {
		b.handler.fleet.newest.Store(b.handler)
	}
	stays.useQueue()
}

// watchQueue tells the operator when the queue falls behind, until ctx ends.
func (a *App) watchQueue(ctx context.Context, d *queue.Dispatcher) {
	ticker := time.NewTicker(watchQueueEvery)
	defer ticker.Stop()
	expires := func(name string) (after time.Duration, ok bool) {
		b, known := a.blocks[name]
		if !known || b.handler.Queue == nil || b.handler.Queue.MaxAge == maxAgeOff {
			return 0, false
		}
		return time.Duration(b.handler.Queue.MaxAge), true
	}
	for {
		a.queue.watchClock(a.logger)
		a.operator.backlog.Look(d, time.Now(), expires, a.logger, a.operator.desk.Tell)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

const watchQueueEvery = 15 * time.Second

// queueStatus returns the queue as the admin API shows it, nil if there is none.
func (a *App) queueStatus() *api.QueueStatus {
	d := a.queue.dispatcher.Load()
	if d == nil {
		return nil
	}
	s := d.Summary()
	status := &api.QueueStatus{
		Engine: caddy.GetModuleName(a.engine), Entries: s.Entries, Bytes: s.Bytes, MaxBytes: s.MaxBytes, Lanes: s.Lanes, LanesWaiting: s.Waiting,
		InFlight: s.InFlight, Paused: s.Paused, Draining: s.Draining, PutTotal: s.Put, DoneTotal: make(map[string]int64), Connected: !s.Away,
	}
	if !s.Oldest.IsZero() {
		status.OldestSeconds = time.Since(s.Oldest).Seconds()
	}
	for end, n := range s.Done {
		status.DoneTotal[string(end)] = n
	}
	return status
}

// queueGauges returns what the metrics show of the open queue, nil if there is none.
func queueGauges() (g *tell.QueueGauges) {
	queues.Range(func(_, value any) bool {
		d := value.(*sharedQueue).dispatcher.Load()
		if d == nil {
			return true
		}
		s := d.Summary()
		g = &tell.QueueGauges{
			Entries: int64(s.Held), Bytes: s.Bytes, MaxBytes: s.MaxBytes, Lanes: s.Lanes, LanesWaiting: s.Waiting, InFlight: s.InFlight,
			Paused: s.Paused, Put: s.Put, Done: make(map[string]int64), Shared: s.Shared, Partitions: s.Shares, Takeovers: s.Gained,
		}
		if !s.Oldest.IsZero() {
			g.Oldest = time.Since(s.Oldest)
		}
		for end, n := range s.Done {
			g.Done[string(end)] = n
		}
		return true
	})
	return g
}

// endDraining ends draining when no block has a queue any more: there is nothing left to take in, and whoever adds a
// queue again does not expect that it refuses everything.
func (a *App) endDraining(d *queue.Dispatcher) {
	if a.queued || !d.Control().Draining {
		return
	}
	if err := d.Drain(false); err != nil {
		a.queue.failed(err)
		return
	}
	a.logger.Info("the queue is no longer being drained, as no block has one")
}

// sayWhatIsQueued logs what the queue holds when a config takes effect, and what another queue holds that the config
// no longer names.
func (a *App) sayWhatIsQueued(d *queue.Dispatcher) {
	s := d.Summary()
	if s.Entries > 0 {
		a.logger.Info("the queue holds notifications from before", zap.Int("entries", s.Entries), zap.Bool("paused", s.Paused), zap.Bool("draining", s.Draining))
	}
	queues.Range(func(_, value any) bool {
		shared := value.(*sharedQueue)
		other := shared.dispatcher.Load()
		if other == nil || other == d {
			return true
		}
		o := other.Summary()
		if o.Place != "" && o.Place == s.Place { // only the settings have changed
			return true
		}
		if n := o.Entries; n > 0 {
			a.logger.Error("another queue still holds notifications, which are delivered only by a config that names it",
				zap.Any("queue", shared.said.Load()), zap.Int("entries", n), zap.String("fix", "go back to it, empty it with 'caddy green-api queue drain', and then change the queue"))
		}
		return true
	})
}

// queueGrace is how long deliveries from the queue may take when the process exits.
func (a *App) queueGrace() time.Duration {
	most := senderTimeout
	for _, b := range a.blocks {
		if b.handler.Queue != nil {
			most = max(most, time.Duration(b.handler.Deliver.AttemptTimeout)+10*time.Second)
		}
	}
	if a.grace > 0 {
		return min(most, a.grace)
	}
	return most
}

// Interface guards
var (
	_ caddy.Provisioner     = (*BoltQueue)(nil)
	_ caddyfile.Unmarshaler = (*BoltQueue)(nil)
	_ queue.Engine          = (*BoltQueue)(nil)
	_ caddy.Destructor      = (*sharedQueue)(nil)
)
