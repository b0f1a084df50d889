package backlog

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// What the operator is told of.
const (
	behindAfter    = 5 * time.Minute  // age of the oldest notification
	standsAfter    = 15 * time.Minute // of a lane, since its first failed round
	nearlyFull     = 0.8              // part of max_size that is in use
	remindEvery    = 15 * time.Minute
	expiringWithin = time.Hour // of max_age, or half of it
)

// A Watch knows what the operator has been told of a queue. The zero value is ready to use.
type Watch struct {
	mu                sync.Mutex // during a reload, two configs may look at once
	full, behind      watch.Trouble
	standing, orphans watch.Troubles
	crowded           watch.Troubles
	daily             watch.Daily
	reminded          time.Time // of what is paused
}

// look is one look at a queue.
type look struct {
	*Watch
	now     time.Time
	expires func(block string) (after time.Duration, ok bool)
	log     *zap.Logger
	tell    func(outcome.Note)
}

// Look checks a queue and tells what has changed since the last look. expires returns the max_age of a block, if it
// has one.
func (w *Watch) Look(d *queue.Dispatcher, now time.Time, expires func(block string) (time.Duration, bool), log *zap.Logger, tell func(outcome.Note)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := look{w, now, expires, log, func(n outcome.Note) {
		n.Kind, n.At = notification.KindNone, now
		tell(n)
	}}
	s, lanes := d.Summary(), d.Lanes()
	l.atPlaces(s.Crowded, lanes)
	l.atAll(s)
	l.atLanes(lanes)
	l.atPauses(d.Control())
}

// atAll looks at the queue as a whole.
func (l *look) atAll(s queue.Summary) {
	full := s.MaxBytes > 0 && float64(s.Bytes) > nearlyFull*float64(s.MaxBytes)
	if began, _ := l.full.See(full); began {
		l.log.Warn("the queue is nearly full", zap.Int64("bytes", s.Bytes), zap.Int64("max_bytes", s.MaxBytes),
			zap.String("fix", "raise max_size of the queue, or see why it is not delivered: caddy green-api queue list"))
	}
	var age time.Duration
	if !s.Oldest.IsZero() {
		age = l.now.Sub(s.Oldest)
	}
	const trouble = "queue"
	switch began, ended := l.behind.See(age > behindAfter); {
	case began:
		l.log.Warn("the queue falls behind", zap.Duration("oldest", age), zap.Int("entries", s.Entries), zap.Int("lanes", s.Lanes), zap.Int("lanes_waiting", s.Waiting), zap.Bool("paused", s.Paused))
		var more strings.Builder
		fmt.Fprintf(&more, "%d notifications wait. See which: caddy green-api queue list.", s.Entries)
		for _, c := range s.Crowded {
			fmt.Fprintf(&more, " All places of the block %s (%d) have been taken for %s.", c.Block, c.Places, l.now.Sub(c.Since).Round(time.Second))
		}
		l.tell(outcome.Note{Reason: reason.QueueBehind, Level: zap.WarnLevel, Trouble: trouble, More: more.String()})
	case ended:
		l.log.Info("the queue has caught up", zap.Int("entries", s.Entries))
		l.tell(outcome.Note{Reason: reason.Recovered, Level: zap.InfoLevel, Trouble: trouble, More: "The queue has caught up."})
	}
}

// atPlaces looks for blocks with lanes that wait for a place, because handlers hang.
func (l *look) atPlaces(crowds []queue.Crowd, lanes []queue.Lane) {
	var names []string
	for _, c := range crowds {
		names = append(names, c.Block)
	}
	began, ended := l.crowded.See(names)
	for _, c := range crowds {
		if !slices.Contains(began, c.Block) {
			continue
		}
		var by []string // the oldest is first
		for _, lane := range lanes {
			if lane.Block == c.Block && lane.State == queue.StateDelivering && len(by) < lanesNamed {
				by = append(by, lane.ID)
			}
		}
		l.log.Warn("all places of a block's queue are taken, other lanes wait", zap.String("name", c.Block), zap.Int("in_flight", c.Places),
			zap.Duration("since", l.now.Sub(c.Since)), zap.Int("ready", c.Ready), zap.Strings("lanes", by),
			zap.String("fix", "see why handlers hang, and which lanes they have: caddy green-api queue list; or lower attempt_timeout, or raise in_flight"))
	}
	for _, name := range ended {
		l.log.Info("places of a block's queue are free again", zap.String("name", name))
	}
}

// lanesNamed is how many of the lanes that have the places are named.
const lanesNamed = 5

// atLanes looks for lanes that stand still or that nobody delivers, and for what is about to be too old.
func (l *look) atLanes(lanes []queue.Lane) {
	var standing, orphans []string
	byID := make(map[string]queue.Lane)
	for _, lane := range lanes {
		if lane.Stands(l.now) > standsAfter {
			standing, byID[lane.ID] = append(standing, lane.ID), lane
		}
		if lane.State == queue.StateNoHandler && !slices.Contains(orphans, lane.Block) {
			orphans = append(orphans, lane.Block)
		}
	}
	stands, moves := l.standing.See(standing)
	for _, id := range stands {
		l.stands(byID[id])
	}
	for _, id := range moves {
		l.log.Info("a lane of the queue goes on", zap.String("lane", id))
		l.tell(outcome.Note{Reason: reason.Recovered, Level: zap.InfoLevel, More: "Lane " + id + " goes on.", Trouble: "lane " + id})
	}
	lost, _ := l.orphans.See(orphans)
	for _, name := range lost {
		l.log.Error("the queue holds notifications of a green_api block that the config does not have, or that has no reverse_proxy",
			zap.String("name", name), zap.String("fix", "give a block this name, or let another one deliver them: caddy green-api queue move --from "+name+" --to NAME"))
		l.tell(outcome.Note{Reason: reason.NoHandler, Level: zap.ErrorLevel, More: "The queue holds notifications of the block " + name + "."})
	}
	l.expiring(lanes)
}

func (l *look) stands(lane queue.Lane) {
	l.log.Warn("a lane of the queue stands still", zap.String("lane", lane.ID), zap.String("instance", lane.Instance),
		zap.Duration("since", lane.Stands(l.now)), zap.Int("rounds", lane.Round), zap.String("reason", lane.Why), zap.Int("entries", lane.Entries),
		zap.String("fix", "see what its handler says, or let the lane go on without its first notification: caddy green-api queue skip "+lane.ID))
	l.tell(outcome.Note{
		Reason: reason.LaneStands, Level: zap.WarnLevel, Instance: lane.Instance, More: "Lane " + lane.ID + ": " + lane.Why + ".",
		Trouble: "lane " + lane.ID,
	})
}

// atPauses reminds the operator of what is paused or drained.
func (l *look) atPauses(c queue.Control) {
	if len(c.Paused) == 0 && !c.Draining {
		l.reminded = time.Time{}
		return
	}
	if l.now.Sub(l.reminded) < remindEvery {
		return
	}
	l.reminded = l.now
	if c.Draining {
		l.log.Warn("the queue is being drained: what comes is answered 503", zap.String("fix", "caddy green-api queue drain --off"))
	}
	for _, t := range c.Paused {
		l.log.Warn("the queue is paused: what comes is kept and not delivered", zap.String("name", t.Block), zap.String("instance", t.Instance), zap.String("fix", "caddy green-api queue resume"))
	}
}

// expiring tells, once a day, of what is about to be too old for delivery.
func (l *look) expiring(lanes []queue.Lane) {
	for _, lane := range lanes { // the oldest is first
		after, expires := l.expires(lane.Block)
		age := l.now.Sub(lane.Oldest)
		if !expires || age < max(after-expiringWithin, after/2) {
			continue
		}
		if l.daily.First(reason.QueueExpiring, l.now) {
			l.log.Warn("a notification in the queue is about to be too old for delivery", zap.String("lane", lane.ID), zap.String("instance", lane.Instance), zap.Duration("age", age), zap.Duration("max_age", after))
			l.tell(outcome.Note{Reason: reason.QueueExpiring, Level: zap.WarnLevel, Instance: lane.Instance, More: "Lane " + lane.ID + "."})
		}
		return
	}
}
