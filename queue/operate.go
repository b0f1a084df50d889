package queue

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What the operator can see and do.

// Errors of what the operator asks for.
var (
	ErrNoLane = errors.New("no such lane in the queue")
	ErrBusy   = errors.New("the lane's first notification is being delivered")
	ErrKnown  = errors.New("the config has a block of this name")
	ErrPassed = errors.New("the lane has another first notification by now")
	ErrNobody = errors.New("no block of this name delivers")
	ErrGone   = errors.New("the lane goes on, but its first notification cannot be read and is in no quarantine")
	ErrEmpty  = errors.New("the queue has nothing of a block of this name")
)

// A Lane is the state of a lane.
type Lane struct {
	ID       string // 12 hexadecimal digits, by the key of the store
	Block    string
	Instance string
	Chat     string // "" if lanes are by instance
	Entries  int
	Bytes    int64
	Oldest   time.Time // time of receipt of the first entry
	State    string
	Round    int       // rounds that have failed for the first entry
	Since    time.Time // when the first of them failed, zero if none did
	Next     time.Time // when the next one begins, zero if that is not known
	Why      string    // the last one failed
	Answers  []Answer  // of the last one that asked handlers, the latest at the end
}

// The states of a lane.
const (
	StateReady      = "ready"      // to be delivered as soon as in_flight lets it
	StateDelivering = "delivering" // a handler has its first entry
	StateWaiting    = "waiting"    // for its next round
	StatePaused     = "paused"
	StateNoHandler  = "no_handler" // the config has no block that delivers it
)

// Stands reports how long a lane has been unable to move on, 0 if it is not.
func (l *Lane) Stands(now time.Time) time.Duration {
	if l.Since.IsZero() {
		return 0
	}
	return now.Sub(l.Since)
}

// Lanes returns all lanes, the one with the oldest first entry first.
func (d *Dispatcher) Lanes() []Lane {
	d.mu.Lock()
	var list []Lane
	for _, b := range d.blocks {
		for _, l := range b.lanes {
			list = append(list, b.describe(l))
		}
	}
	d.mu.Unlock()
	namer := newLaneNamer(d.store.LaneKey())
	for i := range list {
		l := &list[i]
		l.ID = namer.id(l.Block, l.Instance, l.Chat)
	}
	slices.SortFunc(list, func(x, y Lane) int {
		return cmp.Or(x.Oldest.Compare(y.Oldest), cmp.Compare(x.ID, y.ID))
	})
	return list
}

func (b *block) describe(l *lane) Lane {
	first := l.entries.front()
	s := Lane{
		Block: b.name, Instance: l.instance, Chat: l.chat, Entries: l.entries.len(), Bytes: l.bytes,
		Oldest: time.Unix(0, first.received).UTC(), Round: l.round, Since: l.since, Why: l.why, Answers: l.answers,
	}
	switch l.state {
	case delivering, behind:
		s.State = StateDelivering
	case waiting:
		s.State, s.Next = StateWaiting, l.due
	case held:
		s.State = StatePaused
		if !b.known {
			s.State = StateNoHandler
		}
	case ready:
		s.State = StateReady
		if b.down {
			s.State, s.Next, s.Why = StateWaiting, b.probeAt, cmp.Or(s.Why, b.downWhy)
		}
	}
	if b.down && (l.state == ready || b.probing == l) { // the block stands still, not this lane of it
		s.Since = time.Time{}
	}
	return s
}

// An Entry is a record in its lane, as the operator sees it.
type Entry struct {
	Item
	ID, Type, Message string // of the notification; "" if the record cannot be read now
}

// Entries returns up to limit entries of a lane, in their order.
func (d *Dispatcher) Entries(id string, limit int) (Lane, []Entry, error) {
	lane, list, share, err := d.items(id, limit)
	for i := range list {
		e := &list[i]
		r, err := share.Load(e.Seq)
		switch {
		case err == nil:
			e.ID, e.Type, e.Message = r.ID, r.Type, r.Message
		case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged): // the store fails, and may do so slowly
			return lane, list, nil
		}
	}
	return lane, list, err
}

// items is Entries without what only the store knows, and the share that the lane is in.
func (d *Dispatcher) items(id string, limit int) (Lane, []Entry, Share, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, l, err := d.find(id)
	if err != nil {
		return Lane{}, nil, nil, err
	}
	lane := b.describe(l)
	lane.ID = id
	var list []Entry
	for _, e := range l.entries.all()[:min(limit, l.entries.len())] {
		list = append(list, Entry{Item: Item{
			Seq: e.seq, Block: b.name, Instance: l.instance, Chat: e.chat.Value(), Received: time.Unix(0, e.received).UTC(), Size: int(e.size),
		}})
	}
	return lane, list, l.share, nil
}

// find returns a lane. The caller holds the lock.
func (d *Dispatcher) find(id string) (*block, *lane, error) {
	namer := newLaneNamer(d.store.LaneKey())
	for _, b := range d.blocks {
		for _, l := range b.lanes {
			if namer.id(b.name, l.instance, l.chat) == id {
				return b, l, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("%w: %s", ErrNoLane, id)
}

// Control returns what the operator has ordered.
func (d *Dispatcher) Control() Control {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.control
	c.Paused, c.Moves = slices.Clone(c.Paused), slices.Clone(c.Moves)
	return c
}

// order changes what the operator has ordered, durably if err is nil. then runs with the lock held.
func (d *Dispatcher) order(change func(*Control), then func()) error {
	d.ordering.Lock()
	defer d.ordering.Unlock()
	c := d.Control()
	change(&c)
	if err := d.store.SetControl(c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.control = c
	then()
	return nil
}

// Pause lets what is covered by a target wait in the queue, also across restarts. Deliveries under way go on.
func (d *Dispatcher) Pause(t Target) error {
	return d.order(func(c *Control) {
		if !slices.Contains(c.Paused, t) {
			c.Paused = append(c.Paused, t)
		}
	}, func() {
		for _, b := range d.blocks {
			for _, l := range b.lanes {
				if t.covers(b.name, l.instance) {
					b.hold(l)
				}
			}
		}
	})
}

// Resume ends a pause, and all narrower ones: an empty target ends every pause.
func (d *Dispatcher) Resume(t Target) error {
	return d.order(func(c *Control) {
		c.Paused = slices.DeleteFunc(c.Paused, func(p Target) bool { return t.covers(p.Block, p.Instance) })
	}, func() {
		for _, b := range d.blocks {
			for _, l := range b.lanes {
				b.lift(l)
			}
			b.wake()
		}
	})
}

// Drain begins or ends draining, during which nothing more is taken in.
func (d *Dispatcher) Drain(on bool) error {
	return d.order(func(c *Control) { c.Draining = on }, func() {})
}

// Retry ends the wait of one lane.
func (d *Dispatcher) Retry(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, l, err := d.find(id)
	if err != nil {
		return err
	}
	b.hurry(l)
	return nil
}

// RetryAll ends the wait of all lanes that a target covers, and returns how many there are, and how many are paused or
// have no handler, and so stay as they are.
func (d *Dispatcher) RetryAll(t Target) (n, paused, noHandler int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blocks {
		for _, l := range b.lanes {
			switch {
			case !t.covers(b.name, l.instance):
			case l.state == waiting, l.state == ready && b.down:
				b.hurry(l)
				n++
			case l.state == held && b.known:
				paused++
			case l.state == held:
				noHandler++
			}
		}
	}
	return n, paused, noHandler
}

// Skip moves the first entry of a lane into the quarantine, so that the lane goes on. If seq is not 0, that must be
// the entry. An entry that cannot be read is removed, and the error is ErrGone.
func (d *Dispatcher) Skip(id string, seq uint64) error {
	var ended ending
	var answers []Answer
	d.mu.Lock()
	b, l, err := d.find(id)
	if err == nil {
		switch first := l.entries.front().seq; {
		case seq != 0 && seq != first:
			err = ErrPassed
		case !b.seize(l):
			err = ErrBusy
		default:
			seq, ended, answers = first, l.entries.front().ended, l.answers
			d.begin(l.share) // so that no other process delivers it meanwhile
			defer d.end(l.share)
		}
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}

	result := Result{Why: WhyStore}
	r, err := l.share.Load(seq)
	switch {
	case ended != notEnded: // a handler has it, it only has to be removed
		result, err = d.remove(l, seq, ended), nil
	case err == nil:
		result, err = d.keep(l, Delivery{Record: r, By: b.name, Seq: seq, Answers: answers, lane: l.laneKey, store: d.store}, Skipped)
	case errors.Is(err, ErrDamaged): // or else the lane would stand for ever
		d.hooks.Failed(err)
		result, err = Result{Outcome: Gone}, fmt.Errorf("%w: %w", ErrGone, err)
		if failed := l.share.Done(seq); failed != nil {
			result, err = Result{Why: WhyStore}, failed
		}
	}
	d.mu.Lock()
	d.settle(b, l, result)
	b.release()
	d.mu.Unlock()
	return err
}

// Move hands the records of a block that the config no longer has to one that it has, and returns how many there are.
// Those of an instance wait until its deliveries that are under way have ended.
func (d *Dispatcher) Move(from, to string) (n int, err error) {
	err = d.moveable(from, to)
	if err != nil {
		return 0, err
	}
	upTo := d.store.Stats().LastSeq
	err = d.order(func(c *Control) { c.Moves = append(c.Moves, Move{From: from, To: to, UpTo: upTo}) }, func() { n = d.move(from, to) })
	return n, err
}

// move sorts what is in the lanes of one block into those of another, once no delivery of the former is under way, and
// returns how many there are. The caller holds the lock.
func (d *Dispatcher) move(from, to string) int {
	b := d.blocks[from]
	if b.movesTo = ""; b.running > 0 {
		b.movesTo = to
		n := 0
		for _, held := range b.held {
			n += held
		}
		return n
	}
	all := b.take(slices.Collect(maps.Values(b.lanes)))
	came := make(map[string]bool)
	for _, m := range all {
		came[m.instance] = true
	}
	other := d.block(to)
	other.sortAgain(all, func(instance string) bool { return came[instance] })
	other.wake()
	return len(all)
}

// follow adopts what the operator of another process has ordered.
func (d *Dispatcher) follow() {
	d.ordering.Lock()
	defer d.ordering.Unlock()
	c := d.store.Control()
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.control.Moves
	d.control = c
	for _, m := range c.Moves {
		if b := d.blocks[m.From]; b != nil && !b.known && !slices.Contains(old, m) {
			d.move(m.From, m.To)
		}
	}
	for _, b := range d.blocks {
		for _, l := range b.lanes {
			if c.isPaused(b.name, l.instance) {
				b.hold(l)
			} else {
				b.lift(l)
			}
		}
		b.wake()
	}
}

// moveable returns an error if the records of a block cannot be moved to another one now.
func (d *Dispatcher) moveable(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch b, other := d.blocks[from], d.blocks[to]; {
	case b != nil && b.known:
		return fmt.Errorf("%w: %q", ErrKnown, from)
	case other == nil || !other.known:
		return fmt.Errorf("%w: %q", ErrNobody, to)
	case b == nil || len(b.lanes) == 0:
		return fmt.Errorf("%w: %q", ErrEmpty, from)
	case b.running > 0:
		return ErrBusy
	}
	return nil
}

// Summary says what a dispatcher has and does.
type Summary struct {
	// Put is Held and all of Done. In a store that several processes share, Put counts what this one has taken over,
	// too, so that this holds for each of them, and for their sums.
	Stats

	Shared   bool // other processes use the store, too
	Held     int  // entries that this process delivers
	Lanes    int
	Waiting  int       // lanes that stand still: they wait for their next round, or are held
	InFlight int       // deliveries under way
	Oldest   time.Time // time of receipt of the oldest entry, zero if there is none
	Done     map[Outcome]int64
	Paused   bool // something is
	Draining bool
	Crowded  []Crowd // blocks in which lanes have waited for a place for long
}

// A Crowd is a block all of whose places have been taken for more than crowdedAfter, without any change, while lanes
// wait for one.
type Crowd struct {
	Block  string
	Places int
	Since  time.Time // a lane last got a place
	Ready  int       // lanes that wait for one
}

// crowdedAfter is longer than most handlers need for a notification.
const crowdedAfter = 30 * time.Second

// Summary returns what the dispatcher has and does.
func (d *Dispatcher) Summary() Summary {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Summary{Stats: d.store.Stats(), Shared: d.shared, Paused: len(d.control.Paused) > 0, Draining: d.control.Draining, Done: make(map[Outcome]int64)}
	gone := 0 // entries that this process has seen the end of
	for _, outcome := range Outcomes() {
		s.Done[outcome] = d.done[outcome]
		gone += int(d.done[outcome])
	}
	oldest := int64(0)
	for _, b := range d.blocks {
		s.Lanes += len(b.lanes)
		s.InFlight += b.running
		wanting := 0
		for _, l := range b.lanes {
			if l.state == ready {
				wanting++
			}
			if at := l.entries.front().received; oldest == 0 || at < oldest {
				oldest = at
			}
			if l.state == waiting || l.state == held || l.state == ready && b.down {
				s.Waiting++
			}
		}
		if wanting > 0 && b.running >= b.options.InFlight && time.Since(b.placed) > crowdedAfter {
			s.Crowded = append(s.Crowded, Crowd{b.name, b.running, b.placed, wanting})
		}
	}
	if oldest != 0 {
		s.Oldest = time.Unix(0, oldest)
	}
	s.Held = s.Entries
	if d.shared {
		s.Put, s.Held, s.Done[HandedOver] = int64(d.taken), d.taken-d.lost-gone, int64(d.lost)
	}
	return s
}
