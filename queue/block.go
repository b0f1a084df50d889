package queue

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"time"
	"unique"
)

// Options of a block set how its lanes are delivered.
type Options struct {
	ByChat   bool            // a lane for each chat, not for each instance
	InFlight int             // how many deliveries there may be at once
	Retry    []time.Duration // pauses after failed rounds; the last one repeats
	MaxAge   time.Duration   // since receipt, after which an item goes to the quarantine; 0 for never
}

// A block has the lanes that one green_api block delivers. The dispatcher's lock guards it.
type block struct {
	d       *Dispatcher
	name    string
	known   bool // the config has it; otherwise its lanes are held
	options Options
	lanes   map[laneKey]*lane
	held    map[string]int // entries, by instance

	line    fifo[*lane] // ready ones; may also have some that no longer are
	waiting byDue
	running int         // deliveries
	timer   *time.Timer // for the next waiting lane, or the next probe

	// A lane whose last round failed after a long time may hang again, for as long as attempt_timeout. Such lanes never
	// have more than hangingPlaces deliveries, so that a handler that hangs leaves the other places to lanes that did
	// nothing wrong.
	hanging int         // deliveries of such lanes
	aside   fifo[*lane] // such lanes for which next found no place; as line otherwise
	placed  time.Time   // a lane last got a place

	// While no handler can be reached, one lane at a time finds out whether that is over, and the others stay in
	// line.
	down    bool
	downWhy string    // the last probe failed
	probing *lane     // the one that finds out, nil if none does now
	probes  int       // that have failed
	probeAt time.Time // of the next probe, or while there is one, when it counts as having reached a handler

	// Lanes with a delivery that goes on although their share is lost, without the share in their key. The same item
	// may come again with another share; until the delivery has ended, nothing else of its lane is delivered.
	orphans map[laneKey]*lane

	// Instances whose entries are to be sorted into lanes anew, because options.ByChat has changed or entries were moved
	// here. Until its deliveries under way have ended, nothing of the instance is begun: what a handler does not take
	// comes back, and may stand in front of everything else then.
	sorting map[string]*sorting

	movesTo string // the block that gets all entries when no delivery is under way; "" for none
}

// longestProbe is the longest time between two looks whether a handler can be reached.
const longestProbe = 5 * time.Second

// hangingPlaces returns how many places lanes may have whose last round failed after a long time: half of all.
func (o *Options) hangingPlaces() int { return max(1, o.InFlight/2) }

// hangs is the time from which a failed round was long. What a handler refuses at once costs the others nothing.
const hangs = 5 * time.Second

// reachedAfter is how long a probe takes that must have reached a handler. One that cannot be connected to is given up
// sooner: after 3 seconds by default, and a round may ask several.
const reachedAfter = 10 * time.Second

// add puts an item at the end of its lane.
func (b *block) add(share Share, item Item) {
	b.insert(laneKey{share: share, instance: item.Instance}, entry{
		seq: item.Seq, received: item.Received.UnixNano(), chat: unique.Make(item.Chat), size: int32(item.Size), //nolint:gosec // a body is below 2 GiB
	})
	b.wake()
}

// insert puts an entry at the end of the lane of a share and an instance, and of its chat.
func (b *block) insert(key laneKey, e entry) {
	if b.options.ByChat {
		key.chat = e.chat.Value()
	}
	l := b.lanes[key]
	if l == nil {
		l = &lane{laneKey: key}
		b.lanes[key] = l
		if s := b.sorting[key.instance]; s != nil {
			s.lanes = append(s.lanes, l)
		}
		if orphan := b.orphans[key.withoutShare()]; orphan != nil {
			l.state, orphan.successor = behind, l
		} else {
			defer b.schedule(l)
		}
	}
	l.entries.push(e)
	l.bytes += int64(e.size)
	b.held[l.instance]++
}

// drop forgets that many entries of an instance.
func (b *block) drop(instance string, n int) {
	if b.held[instance] -= n; b.held[instance] <= 0 {
		delete(b.held, instance)
	}
}

// lose forgets a lane whose share is lost. A delivery under way goes on.
func (b *block) lose(l *lane) {
	if l.state == delivering {
		b.orphans[l.withoutShare()] = l
	}
	b.hold(l)
	delete(b.lanes, l.laneKey)
	b.drop(l.instance, l.entries.len())
	b.d.lost += l.entries.len()
}

// inherit lets the lane go on that waited for a delivery whose share is lost. What that delivery came to counts, if
// the lane has the same entry.
func (b *block) inherit(l *lane) (has bool) {
	if b.orphans[l.withoutShare()] != l {
		return false
	}
	delete(b.orphans, l.withoutShare())
	ended := l.entries.front()
	if next := l.successor; next != nil && b.lanes[next.laneKey] == next {
		if first := next.entries.front(); first.seq == ended.seq {
			first.ended, has = ended.ended, true
		}
		b.schedule(next)
		return has
	}
	s := b.sorting[l.instance]
	if s == nil {
		return false
	}
	for _, other := range s.lanes { // the key has changed meanwhile, so the entry may be in another lane, at any place
		for i, e := range other.entries.all() {
			if e.seq == ended.seq && b.lanes[other.laneKey] == other {
				other.entries.all()[i].ended, has = ended.ended, true
			}
		}
	}
	return has
}

// schedule decides what a lane that is not being delivered waits for. The caller calls wake, unless it looks for the
// next lane by itself.
func (b *block) schedule(l *lane) {
	if !b.known || b.d.control.isPaused(b.name, l.instance) {
		l.state = held
		return
	}
	l.state = ready
	b.line.push(l)
}

// wake begins as many deliveries as there may be.
func (b *block) wake() {
	for b.running < b.options.InFlight {
		l := b.next()
		if l == nil {
			return
		}
		b.running++
		b.d.working.Go(func() { b.d.work(b, l) })
	}
}

// next returns the lane to deliver next, nil if there is none now. The caller delivers it.
func (b *block) next() *lane {
	if b.d.ending || b.movesTo != "" {
		return nil
	}
	if b.down && (b.probing != nil || b.probeAt.After(time.Now())) {
		return nil
	}
	l := b.first()
	if l == nil {
		return nil
	}
	l.state, l.began = delivering, time.Now()
	b.placed = l.began
	if l.hung {
		l.placed = true
		b.hanging++
	}
	if b.down {
		b.probing, b.probeAt = l, b.placed.Add(reachedAfter)
		b.setTimer()
	}
	return l
}

// first takes the first lane out of line that there is a place for. Those aside were in front of all others.
func (b *block) first() *lane {
	room := b.hanging < b.options.hangingPlaces()
	for room && b.aside.len() > 0 {
		if l := b.aside.pop(); b.mayBegin(l) {
			return l
		}
	}
	for b.line.len() > 0 {
		switch l := b.line.pop(); {
		case !b.mayBegin(l):
		case l.hung && !room:
			b.aside.push(l)
		default:
			return l
		}
	}
	return nil
}

// mayBegin reports whether a lane that was in line is still to be delivered. One whose instance is to be sorted is not:
// its entries come into line with their new lanes.
func (b *block) mayBegin(l *lane) bool { return l.state == ready && b.sorting[l.instance] == nil }

// wait lets a lane wait for its next round.
func (b *block) wait(l *lane, due time.Time) {
	l.state, l.due = waiting, due
	heap.Push(&b.waiting, l)
	b.setTimer()
}

// settle notes how a round of a lane ended. It reports whether another lane has the entry and will end it once more.
func (b *block) settle(l *lane, r Result, now time.Time) (again bool) {
	if l.placed {
		l.placed = false
		b.hanging--
	}
	b.learn(l, r, now)
	switch {
	case b.lanes[l.laneKey] != l: // its share is lost
		l.entries.front().ended = max(l.entries.front().ended, endingOf(r.Outcome))
		return b.inherit(l)
	case r.Outcome != "":
		b.drop(l.instance, 1)
		l.hung = l.hung && r.Outcome != Delivered
		if l.next() {
			b.schedule(l)
		} else {
			delete(b.lanes, l.laneKey)
		}
	default:
		pause := l.failed(r, b.options.Retry, now)
		if r.Unreachable || b.d.control.isPaused(b.name, l.instance) {
			b.schedule(l) // if it stands in line, the next probe decides
		} else {
			b.wait(l, now.Add(pause))
		}
	}
	return false
}

// learn notes whether a round of a lane reached a handler.
func (b *block) learn(l *lane, r Result, now time.Time) {
	probe := b.probing == l
	if probe {
		b.probing, b.probeAt = nil, time.Time{}
	}
	switch {
	case !r.asked:
	case !r.Unreachable && b.down:
		b.down, b.probes = false, 0
		b.wake()
	case !r.Unreachable:
		b.probes = 0
	case probe || !b.down:
		b.down, b.downWhy = true, r.Why
		b.probes++
		b.probeAt = now.Add(min(spread(b.options.Retry[min(b.probes, len(b.options.Retry))-1]), longestProbe))
		b.setTimer()
	}
}

// setTimer sets the timer for the next lane that is due, or for the next probe.
func (b *block) setTimer() {
	now := time.Now()
	var at time.Time
	if len(b.waiting) > 0 {
		at = b.waiting[0].due
	}
	if b.down && b.probeAt.After(now) && (at.IsZero() || b.probeAt.Before(at)) {
		at = b.probeAt
	}
	if !at.IsZero() {
		b.timer.Reset(max(0, at.Sub(now)))
	}
}

// ring is called by the timer.
func (b *block) ring() {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	for now := time.Now(); len(b.waiting) > 0 && !b.waiting[0].due.After(now); {
		b.schedule(heap.Pop(&b.waiting).(*lane))
	}
	if b.probing != nil && !b.probeAt.After(time.Now()) { // a handler has been at work all the time
		b.down, b.probing, b.probes = false, nil, 0
	}
	b.wake()
	b.setTimer()
}

// hurry ends the wait of a lane.
func (b *block) hurry(l *lane) {
	if l.state == waiting {
		heap.Remove(&b.waiting, l.place)
		b.schedule(l)
	}
	if b.probing == nil {
		b.probeAt = time.Time{}
	}
	b.wake()
}

// hold takes a lane out of line, because it is paused.
func (b *block) hold(l *lane) {
	switch l.state {
	case waiting:
		heap.Remove(&b.waiting, l.place)
		l.state = held
	case ready:
		l.state = held
	}
}

// seize takes a lane for something else than a delivery. It reports false if one is under way. Call release in the
// end.
func (b *block) seize(l *lane) bool {
	if l.state == delivering || l.state == behind || b.movesTo != "" || b.sorting[l.instance] != nil {
		return false
	}
	b.hold(l)
	l.state, b.placed = delivering, time.Now()
	b.running++
	return true
}

// release ends what a worker or seize began.
func (b *block) release() {
	b.running--
	if b.running == 0 && b.movesTo != "" {
		b.d.move(b.name, b.movesTo)
	}
	b.wake()
}

// lift schedules a lane that was held.
func (b *block) lift(l *lane) {
	if l.state == held {
		b.schedule(l)
	}
}

// configure sets new options.
func (b *block) configure(o Options) {
	wasKnown := b.known
	regroup := b.options.ByChat != o.ByChat
	b.known, b.options = true, o
	if regroup {
		b.sortAgain(nil, func(string) bool { return true })
	}
	for _, l := range b.lanes {
		if !wasKnown {
			b.lift(l)
		}
	}
	b.wake()
}

// forget holds the lanes of a block that the config no longer has.
func (b *block) forget() {
	b.known = false
	for _, l := range b.lanes {
		b.hold(l)
	}
}

// moved is an entry with what is needed to find its lane.
type moved struct {
	laneKey
	entry
}

// sorting is an instance whose entries are to be sorted anew.
type sorting struct {
	deliveries int // under way when it began
	lanes      []*lane
}

// take returns all entries of lanes, which the block does not have afterwards. None is being delivered.
func (b *block) take(lanes []*lane) (all []moved) {
	for _, l := range lanes {
		if b.lanes[l.laneKey] != l {
			continue
		}
		b.hold(l) // so that the line passes it over
		delete(b.lanes, l.laneKey)
		b.drop(l.instance, l.entries.len())
		key := l.laneKey
		key.chat = ""
		for _, e := range l.entries.all() {
			all = append(all, moved{key, e})
		}
	}
	return all
}

// putBack sorts entries into lanes, in the order in which they came.
func (b *block) putBack(all []moved) {
	slices.SortFunc(all, func(x, y moved) int { return cmp.Compare(x.seq, y.seq) })
	for _, m := range all {
		b.insert(m.laneKey, m.entry)
	}
}

// sortAgain sorts the entries of some instances into lanes anew, together with those that were moved here. Instances with
// a delivery under way wait for its end, and no other does.
func (b *block) sortAgain(more []moved, of func(instance string) bool) {
	maps.DeleteFunc(b.sorting, func(instance string, _ *sorting) bool { return of(instance) })
	for _, lanes := range []map[laneKey]*lane{b.lanes, b.orphans} {
		for _, l := range lanes {
			if l.state != delivering || !of(l.instance) {
				continue
			}
			if b.sorting[l.instance] == nil {
				b.sorting[l.instance] = new(sorting)
			}
			b.sorting[l.instance].deliveries++
		}
	}
	var free []*lane
	for _, l := range b.lanes {
		switch s := b.sorting[l.instance]; {
		case !of(l.instance):
		case s != nil:
			s.lanes = append(s.lanes, l)
		default:
			free = append(free, l)
		}
	}
	b.putBack(append(b.take(free), more...))
}

// ended notes the end of a delivery, and sorts the entries of its instance anew if they wait for that.
func (b *block) ended(instance string) {
	s := b.sorting[instance]
	if s == nil {
		return
	}
	if s.deliveries--; s.deliveries > 0 {
		return
	}
	delete(b.sorting, instance)
	b.putBack(b.take(s.lanes))
	b.wake()
}
