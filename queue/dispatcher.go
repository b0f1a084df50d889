package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrDraining is returned by Dispatcher.Put while nothing more is taken in.
var ErrDraining = errors.New("queue is being drained")

// Hooks connect a dispatcher with the rest of the edge. They do not panic.
type Hooks struct {
	// Deliver makes one round: it asks handlers until one takes the record, or there is no point in asking more of
	// them now.
	Deliver func(Delivery) Result

	// Keep puts a record into the quarantine that will not be delivered. Its error says why it cannot.
	Keep func(d Delivery, why Fate) error

	// Failed reports that the store failed to read or remove a record.
	Failed func(error)

	// InDoubt reports whether the clock was changed so recently that the age of a record says nothing. nil means
	// never.
	InDoubt func() bool
}

// A Delivery is one round for one record.
type Delivery struct {
	*Record
	By    string // name of the block that delivers it
	Round int    // from 1
	Seq   uint64

	// For Keep: what handlers said to it so far, as far as that is known.
	Answers []Answer

	lane  laneKey
	store Store
}

// LaneID returns the ID of the lane that the record is in.
func (d Delivery) LaneID() string {
	return newLaneNamer(d.store.LaneKey()).id(d.By, d.lane.instance, d.lane.chat)
}

// A Fate is why a record is not delivered.
type Fate string

// The fates.
const (
	Expired Fate = "expired" // it is older than max_age
	Skipped Fate = "skipped" // the operator wanted the lane to go on without it
)

// A Result is how a round ended.
type Result struct {
	Outcome Outcome // "" if the record stays in the queue, for another round

	Why         string        // the round failed
	RetryAfter  time.Duration // how long the handler asked to be left alone
	Unreachable bool          // no handler could be reached at all
	Answers     []Answer      // of handlers that did not take the record, the latest at the end; kept in memory, so few and short

	asked bool // handlers were asked
}

// An Answer is what a handler said to a record that it did not take.
type Answer struct {
	Handler string // its address, "" if unknown
	Status  int    // 0 if it did not answer
	Text    string // the beginning of its answer
	Error   string // why there is no answer
}

// An Outcome is what became of a record that has left the queue.
type Outcome string

// The outcomes, in the words of the log and the metrics.
const (
	Delivered   Outcome = "delivered"
	Quarantined Outcome = "quarantined"
	Gone        Outcome = "gone"        // something else has removed it from the store
	HandedOver  Outcome = "handed_over" // another process has taken over its share
)

// Outcomes lists them all.
func Outcomes() []Outcome { return []Outcome{Delivered, Quarantined, Gone, HandedOver} }

// Why a round failed, for reasons of the queue's own.
const (
	WhyStore      = "queue_unavailable"
	WhyQuarantine = "quarantine_unavailable"
)

// keepAgain is the pause after the quarantine could not take a record.
const keepAgain = time.Minute

// sweepEvery is how often records are looked for that have become too old.
const sweepEvery = 30 * time.Second

// A Dispatcher delivers what a store holds. A lane never has more than one delivery under way, and lanes do not
// wait for each other.
type Dispatcher struct {
	store Store
	hooks Hooks

	mu      sync.Mutex
	control Control
	blocks  map[string]*block
	done    map[Outcome]int64
	found   int // entries that the store held at the start
	taken   int // items that have come since
	lost    int // of those, how many were lost with their share
	began   time.Time
	under   map[Share]*rounds
	ending  bool // no delivery may begin

	putting map[string]*putting // by instance
	coming  map[sourceKey]coming

	working sync.WaitGroup // deliveries
	serving sync.WaitGroup
	stop    context.CancelFunc

	shared    bool          // other processes use the store, too
	abandoned chan struct{} // closed when Close waits no longer

	ordering sync.Mutex // guards changes of control, which wait for the store
}

// New returns a dispatcher for a store. It delivers nothing before Start.
func New(store Store, hooks Hooks) *Dispatcher {
	s := store.Stats()
	d := &Dispatcher{
		store: store, hooks: hooks, control: store.Control(),
		blocks: make(map[string]*block), done: make(map[Outcome]int64), found: s.Entries - s.Others, began: time.Now(),
		under: make(map[Share]*rounds), abandoned: make(chan struct{}), stop: func() {},
		putting: make(map[string]*putting), coming: make(map[sourceKey]coming),
	}
	if shared, ok := store.(SharedStore); ok {
		d.shared = true
		shared.Changed(d.follow)
	}
	return d
}

// Start begins to deliver. Records of blocks that Configure has not named are held.
func (d *Dispatcher) Start() {
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.serving.Go(func() { d.sweep(ctx) })
	d.serving.Go(func() {
		for ctx.Err() == nil {
			if err := d.store.Serve(ctx, func(share Share) { d.take(ctx, share) }); err != nil && ctx.Err() == nil {
				d.hooks.Failed(err)
				sleep(ctx, time.Second)
			}
		}
	})
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// End lets no further delivery begin. Those under way go on. Of a store that other processes use, too, they get what is
// left.
func (d *Dispatcher) End() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending = true
	if d.shared {
		d.stop()
	}
}

// Close is End, waits for the deliveries under way until ctx ends, and stops. The store stays open.
func (d *Dispatcher) Close(ctx context.Context) {
	d.End()
	idle := make(chan struct{})
	go func() {
		d.working.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		d.mu.Lock()
		if !isClosed(d.abandoned) {
			close(d.abandoned)
		}
		d.mu.Unlock()
	}
	d.stop()
	d.serving.Wait()
}

// take sorts the items of a share into lanes until the share is lost. If another process may get it, take returns only
// when no round is under way any more.
func (d *Dispatcher) take(ctx context.Context, share Share) {
	for {
		item, err := share.Next(ctx)
		if err != nil {
			break
		}
		d.mu.Lock()
		d.taken++
		if d.taken <= d.found {
			d.finds(item)
		} else {
			d.arrives(sourceKey{item.Block, item.Instance})
		}
		d.blockOf(item).add(share, item)
		d.mu.Unlock()
	}
	d.mu.Lock()
	for _, b := range d.blocks {
		for key, l := range b.lanes {
			if key.share != share {
				continue
			}
			b.lose(l)
		}
	}
	r := d.under[share]
	d.mu.Unlock()
	if r == nil || !d.shared {
		return
	}
	select {
	case <-r.over:
	case <-d.abandoned:
	}
}

// blockOf returns the block that delivers an item.
func (d *Dispatcher) blockOf(item Item) *block {
	name := item.Block
	for _, m := range d.control.Moves {
		if m.From == name && item.Seq <= m.UpTo {
			name = m.To
		}
	}
	return d.block(name)
}

func (d *Dispatcher) block(name string) *block {
	b := d.blocks[name]
	if b == nil {
		b = &block{d: d, name: name, lanes: make(map[laneKey]*lane), held: make(map[string]int), orphans: make(map[laneKey]*lane), sorting: make(map[string]*sorting), options: Options{InFlight: 1, Retry: []time.Duration{time.Minute}}}
		b.timer = time.AfterFunc(0, b.ring)
		d.blocks[name] = b
	}
	return b
}

// Configure names the blocks of the config, with their options. What belongs to any other block is held.
func (d *Dispatcher) Configure(blocks map[string]Options) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, o := range blocks {
		d.block(name).configure(o)
	}
	for name, b := range d.blocks {
		if _, known := blocks[name]; !known {
			b.forget()
		}
	}
}

// Holds reports whether the queue has anything of an instance that a block delivers.
func (d *Dispatcher) Holds(block, instance string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.blocks[block]
	if b != nil && b.held[instance] > 0 {
		return true
	}
	if c := d.coming[sourceKey{block, instance}]; c.n > 0 && time.Since(c.last) < sortTime {
		return true
	}
	return d.taken < d.found && time.Since(d.began) < sortTime // what is not in a lane yet may be the instance's
}

// sortTime is how long it may take to sort what the store held when it was opened.
const sortTime = 10 * time.Second

// work makes rounds, the first with a lane that next returned, for as long as there are lanes.
func (d *Dispatcher) work(b *block, l *lane) {
	for l != nil {
		r := d.round(b, l)
		d.mu.Lock()
		d.settle(b, l, r)
		l = nil
		if b.running <= b.options.InFlight {
			l = b.next()
		}
		if l == nil {
			b.release()
		}
		d.mu.Unlock()
	}
}

// settle notes how a round ended. The caller holds the lock.
func (d *Dispatcher) settle(b *block, l *lane, r Result) {
	lost := b.lanes[l.laneKey] != l
	again := b.settle(l, r, time.Now())
	b.ended(l.instance)
	if r.Outcome == "" || again {
		return
	}
	d.done[r.Outcome]++
	if lost {
		d.lost-- // it was counted when its share was lost
	}
}

// round makes one round for the first entry of a lane, which nobody else touches meanwhile.
func (d *Dispatcher) round(b *block, l *lane) Result {
	d.mu.Lock()
	e, by, round, maxAge, answers := l.entries.front(), b.name, l.round+1, b.options.MaxAge, l.answers
	seq, received, ended := e.seq, e.received, e.ended
	d.begin(l.share)
	d.mu.Unlock()
	defer d.end(l.share)
	if ended != notEnded {
		return d.remove(l, seq, ended)
	}
	r, err := l.share.Load(seq)
	if err != nil {
		if !isClosed(l.share.Lost()) { // which is no fault
			d.hooks.Failed(err)
		}
		if errors.Is(err, ErrNotFound) {
			return Result{Outcome: Gone}
		}
		return Result{Why: WhyStore}
	}
	delivery := Delivery{Record: r, By: by, Round: round, Seq: seq, lane: l.laneKey, store: d.store}
	if d.isTooOld(received, maxAge, time.Now()) {
		delivery.Answers = answers
		result, _ := d.keep(l, delivery, Expired)
		return result
	}
	result := d.hooks.Deliver(delivery)
	if result.Outcome != "" {
		d.leaves(r)
	}
	switch result.Outcome {
	case Delivered:
		result = d.remove(l, seq, delivered)
	case Quarantined:
		result = d.remove(l, seq, quarantined)
	}
	result.asked = true
	return result
}

// rounds are those under way for the records of a share.
type rounds struct {
	n    int
	over chan struct{} // closed when there are none
}

// begin counts a round. The caller holds the lock.
func (d *Dispatcher) begin(share Share) {
	r := d.under[share]
	if r == nil {
		r = &rounds{over: make(chan struct{})}
		d.under[share] = r
	}
	r.n++
}

func (d *Dispatcher) end(share Share) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.under[share]
	if r.n--; r.n == 0 {
		close(r.over)
		delete(d.under, share)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// keep moves the first entry of a lane into the quarantine. A crash in between leaves it in both.
func (d *Dispatcher) keep(l *lane, delivery Delivery, why Fate) (Result, error) {
	if err := d.hooks.Keep(delivery, why); err != nil {
		return Result{Why: WhyQuarantine, RetryAfter: keepAgain}, err
	}
	d.leaves(delivery.Record)
	return d.remove(l, delivery.Seq, quarantined), nil
}

// remove removes the first entry of a lane from the store. If that fails, it is not delivered again: the next round
// removes it.
func (d *Dispatcher) remove(l *lane, seq uint64, how ending) Result {
	if err := l.share.Done(seq); err != nil {
		d.hooks.Failed(err)
		d.mu.Lock()
		l.entries.front().ended = how
		d.mu.Unlock()
		return Result{Why: WhyStore}
	}
	if how == delivered {
		return Result{Outcome: Delivered}
	}
	return Result{Outcome: Quarantined}
}

// clockTime is how long after a start a wrong clock may take to be set, on a machine that does not keep the time while it
// is off. That it is set shows in InDoubt.
const clockTime = 10 * time.Minute

// isTooOld reports whether an entry is older than max_age. By the time of day alone, nothing is: what was received before
// the start is tried for a while, however old it looks.
func (d *Dispatcher) isTooOld(received int64, maxAge time.Duration, now time.Time) bool {
	return maxAge > 0 && now.Sub(time.Unix(0, received)) > maxAge && now.Sub(d.began) > min(maxAge, clockTime) &&
		(d.hooks.InDoubt == nil || !d.hooks.InDoubt())
}

// sweep moves what has become too old into the quarantine, also from lanes that are held, until ctx ends.
func (d *Dispatcher) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.forgetPuts(time.Now())
			for _, old := range d.tooOld(time.Now()) {
				d.expire(ctx, old.block, old.lane)
			}
		}
	}
}

type laneOf struct {
	block *block
	lane  *lane
}

// tooOld returns the lanes with a first entry that is too old and is not being delivered.
func (d *Dispatcher) tooOld(now time.Time) (found []laneOf) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blocks {
		for _, l := range b.lanes {
			if l.state != delivering && l.state != behind && d.isTooOld(l.entries.front().received, b.options.MaxAge, now) {
				found = append(found, laneOf{b, l})
			}
		}
	}
	return found
}

// expire moves the entries of a lane that are too old into the quarantine, one after another.
func (d *Dispatcher) expire(ctx context.Context, b *block, l *lane) {
	for ctx.Err() == nil {
		d.mu.Lock()
		old := b.lanes[l.laneKey] == l && !d.ending && d.isTooOld(l.entries.front().received, b.options.MaxAge, time.Now())
		old = old && b.seize(l)
		d.mu.Unlock()
		if !old {
			return
		}
		r := d.round(b, l) // sees by itself that it is too old
		d.mu.Lock()
		d.settle(b, l, r)
		b.release()
		d.mu.Unlock()
		if r.Outcome == "" {
			return
		}
	}
}

// isPaused reports whether the operator has paused an instance of a block.
func (c *Control) isPaused(block, instance string) bool {
	return slices.ContainsFunc(c.Paused, func(t Target) bool { return t.covers(block, instance) })
}
