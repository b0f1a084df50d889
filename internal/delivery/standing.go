package delivery

import (
	"container/list"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// GREEN-API sends one notification of an instance at a time, the head of its queue, and sends the same again until it
// gets a 200. So an instance stands still as long as nothing takes its head.

const (
	// comesAgain is how long GREEN-API waits before it sends a notification again.
	comesAgain = 60 * time.Second

	// standsFor is how long an instance is listed of which nothing more has come: GREEN-API has deleted its head by then.
	standsFor = 24 * time.Hour

	maxStanding = 10_000

	// mostHandlers is how many handlers are named that did not take the head of an instance.
	mostHandlers = 8
)

// Standing is an instance that stands still. It holds nothing of the notification.
type Standing struct {
	Instance string
	Since    time.Time // its head first failed, or has begun to wait
	Attempts int       // how often handlers were asked to take its head, over all re-sends
	Reason   reason.Reason
	Handler  string    // of the last answer, "" if there is none
	Handlers []string  // all that did not take it, at most mostHandlers, in the order of their first answer
	Said     string    // the last answer: its status and first line, or why there is none
	Waiting  bool      // for a handler, now; otherwise the sender will send it again
	Seen     time.Time // something of it last happened
	Next     time.Time // about when it comes again, zero if that is not known
}

// standing holds the instances that stand still, the last maxStanding of them.
type standing struct {
	some atomic.Bool // there is one, so it is worth looking

	mu   sync.Mutex
	of   map[string]*list.Element
	list list.List // of *stuck, the one that was heard of longest ago first
}

type stuck struct {
	Standing
	head outcome.Digest
	hand *outcome.Case // the delivery of the head that is under way, nil if there is none
}

// begin records that the head of an instance has come again.
func (s *standing) begin(c *outcome.Case, now time.Time) {
	if !s.some.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.of[c.N.Instance]; at != nil {
		if e := at.Value.(*stuck); e.head == c.Digest() && e.hand == nil {
			s.touch(at, c, now)
		}
	}
}

// wait records that a notification has long waited for a handler.
func (s *standing) wait(c *outcome.Case, waited time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.held(c, now); e != nil && e.Attempts == 0 { // an answer says more
		e.Since, e.Reason = earlier(e.Since, now.Add(-waited)), reason.NotNow
	}
}

// slow records that a handler, "" if it is not known, has had a notification for long. t may have been settled since.
func (s *standing) slow(t *Try, handler string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.settled {
		return
	}
	if e := s.held(t.Case, now); e != nil && e.Attempts == 0 {
		e.Since, e.Handler = earlier(e.Since, now.Add(-t.limits.WarnAfter)), strings.Clone(handler)
	}
}

// fail records an answer of a handler that did not take a notification.
func (s *standing) fail(c *outcome.Case, got Answer, now time.Time) {
	said := saidOf(got, c.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.held(c, now); e != nil {
		e.Attempts++
		e.Reason, e.Handler, e.Said = got.Result.Why(), strings.Clone(got.Handler), said
		if got.Handler != "" && len(e.Handlers) < mostHandlers && !slices.Contains(e.Handlers, got.Handler) {
			e.Handlers = append(e.Handlers, e.Handler)
		}
	}
}

// concerns reports whether a verdict says anything of who stands still.
func (s *standing) concerns(end *outcome.Verdict) bool { return failed(end) || s.some.Load() }

func failed(end *outcome.Verdict) bool { return end == nil || end.Outcome == outcome.Failed }

// end records the verdict on a notification, nil if its delivery crashed, and since when it has failed, if that is
// known.
func (s *standing) end(c *outcome.Case, end *outcome.Verdict, since, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !failed(end) { // the sender goes on
		if at := s.of[c.N.Instance]; at != nil {
			s.remove(at)
		}
		return
	}
	e := s.held(c, now)
	if e == nil {
		return
	}
	e.hand = nil
	if end != nil {
		e.Reason = end.Reason
	}
	if !since.IsZero() {
		e.Since = earlier(e.Since, since)
	}
	if c.Via == "" { // it was posted; a receiver of the HTTP API has pauses of its own
		e.Next = now.Add(comesAgain)
	}
}

// held returns the entry of an instance whose head is being delivered, nil if another notification of it is.
func (s *standing) held(c *outcome.Case, now time.Time) *stuck {
	if c.N.Instance == "" {
		return nil
	}
	at := s.of[c.N.Instance]
	if at != nil {
		e := at.Value.(*stuck)
		switch {
		case e.hand == c:
		case e.hand != nil:
			return nil
		case e.head != c.Digest(): // the one before is gone from the sender's queue
			e.Since, e.Attempts, e.Reason, e.Handler, e.Handlers, e.Said = now, 0, "", "", nil, ""
		}
		return s.touch(at, c, now)
	}
	s.prune(now)
	if s.list.Len() == maxStanding {
		s.remove(s.list.Front())
	}
	if s.of == nil {
		s.of = make(map[string]*list.Element)
	}
	instance := strings.Clone(c.N.Instance) // not a part of the body, which would stay in memory
	at = s.list.PushBack(&stuck{Standing: Standing{Instance: instance, Since: now}})
	s.of[instance] = at
	s.some.Store(true)
	return s.touch(at, c, now)
}

func (s *standing) touch(at *list.Element, c *outcome.Case, now time.Time) *stuck {
	s.list.MoveToBack(at)
	e := at.Value.(*stuck)
	e.head, e.hand, e.Seen, e.Next = c.Digest(), c, now, time.Time{}
	return e
}

func (s *standing) remove(at *list.Element) {
	delete(s.of, s.list.Remove(at).(*stuck).Instance)
	s.some.Store(s.list.Len() > 0)
}

// prune removes instances of which nothing has come for so long that they do not stand still any more.
func (s *standing) prune(now time.Time) {
	for at := s.list.Front(); at != nil; {
		e, next := at.Value.(*stuck), at.Next()
		if now.Sub(e.Seen) < standsFor {
			return
		}
		if e.hand == nil {
			s.remove(at)
		}
		at = next
	}
}

// Standing returns the instances that stand still, the one that does so longest first.
func (f *Fleet) Standing() []Standing {
	s := &f.standing
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(f.Clock.Now().wall)
	all := make([]Standing, 0, s.list.Len())
	for at := s.list.Front(); at != nil; at = at.Next() {
		e := at.Value.(*stuck)
		e.Waiting = e.hand != nil
		all = append(all, e.Standing)
		all[len(all)-1].Handlers = slices.Clone(e.Handlers)
	}
	slices.SortStableFunc(all, func(x, y Standing) int { return x.Since.Compare(y.Since) })
	return all
}

func earlier(x, y time.Time) time.Time {
	if y.Before(x) {
		return y
	}
	return x
}
