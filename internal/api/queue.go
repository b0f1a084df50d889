package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// ErrNoQueue is the error of an edge that delivers without a queue.
var ErrNoQueue = errors.New("the config that runs has no queue, and nothing is left in one")

// QueueLane is a lane of the queue, as the API shows it.
type QueueLane struct {
	Lane     string    `json:"lane"` // its ID
	Name     string    `json:"name"` // of the block that delivers it
	Instance string    `json:"instance"`
	Chat     string    `json:"chat"` // "" if the lane is that of a whole instance
	Entries  int       `json:"entries"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest"`        // time of receipt of the first entry
	State    string    `json:"state"`         // ready, delivering, waiting, paused or no_handler
	Round    int       `json:"round"`         // rounds that have failed for the first entry
	Next     time.Time `json:"next,omitzero"` // when the next one begins, if that is known
	Reason   string    `json:"reason"`        // the last one failed

	Answer *QueueAnswer `json:"answer,omitempty"` // the last one to it, if a handler was asked
}

// QueueAnswer is what a handler said to a notification that it did not take.
type QueueAnswer struct {
	Handler string `json:"handler,omitempty"` // its address
	Status  int    `json:"status,omitempty"`
	Text    string `json:"text,omitempty"`  // the beginning of its answer
	Error   string `json:"error,omitempty"` // why there is none
}

// QueueEntry is a notification in the queue, as the API shows it.
type QueueEntry struct {
	Seq      uint64    `json:"seq"` // its position
	Received time.Time `json:"received"`
	Size     int       `json:"size"` // bytes of the body
	Chat     string    `json:"chat"`
	ID       string    `json:"id,omitempty"` // idMessage
	Type     string    `json:"type,omitempty"`
	Message  string    `json:"message,omitempty"`
}

// QueueState says what the queue holds, and what the operator has ordered.
type QueueState struct {
	Entries  int            `json:"entries"`
	Bytes    int64          `json:"bytes"`
	MaxBytes int64          `json:"max_bytes"`
	Lanes    int            `json:"lanes"`
	Waiting  int            `json:"lanes_waiting"` // they stand still
	InFlight int            `json:"in_flight"`
	Paused   []queue.Target `json:"paused"` // {} is all of the queue
	Draining bool           `json:"draining"`
	Crowded  []QueueCrowd   `json:"crowded,omitempty"`
}

// QueueCrowd is a block whose places are all taken, without any change for half a minute, while lanes wait for one.
type QueueCrowd struct {
	Name     string    `json:"name"`
	InFlight int       `json:"in_flight"`
	Since    time.Time `json:"since"` // a lane last got a place
	Ready    int       `json:"ready"` // lanes that wait for one
}

// QueueDone is the answer to a retry, a skip and a move: how many lanes or notifications it was about.
type QueueDone struct {
	Lanes   *int `json:"lanes,omitempty"`   // of a retry
	Entries *int `json:"entries,omitempty"` // of a skip or a move

	// Of a retry of more than one lane: lanes that it left as they were.
	Paused    int `json:"paused,omitempty"`
	NoHandler int `json:"no_handler,omitempty"`
}

// queueOf parses the parameters of a request, which has only those that are allowed, and returns the queue.
func (e *Edge) queueOf(r *http.Request, allowed ...string) (*queue.Dispatcher, url.Values, error) {
	var d *queue.Dispatcher
	if e.Queue != nil {
		d = e.Queue()
	}
	if d == nil {
		return nil, nil, notFound(ErrNoQueue)
	}
	asked, err := parametersOf(r)
	if err != nil {
		return nil, nil, badRequest(err)
	}
	for name, values := range asked {
		switch {
		case !slices.Contains(allowed, name):
			err = errors.New("unknown parameter")
		case len(values) > 1:
			err = errors.New("more than one")
		case values[0] == "": // most likely an unset variable
			err = ErrEmptyValue
		}
		if err != nil {
			return nil, nil, badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return d, asked, nil
}

// targetOf returns what the parameters name and instance select.
func targetOf(asked url.Values) queue.Target {
	return queue.Target{Block: asked.Get("name"), Instance: asked.Get("instance")}
}

// flagOf returns a parameter that is true or false, and false if it is not said.
func flagOf(asked url.Values, name string) (bool, error) {
	switch text := asked.Get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, badRequest(fmt.Errorf("%s: invalid value %q; want true or false", name, text))
	}
}

// limitOf returns the parameter limit.
func limitOf(asked url.Values, otherwise int) (int, error) {
	text := asked.Get("limit")
	if text == "" {
		return otherwise, nil
	}
	limit, err := strconv.Atoi(text)
	if err == nil && limit < 1 {
		err = errors.New("want 1 or more")
	}
	if err != nil {
		return 0, badRequest(fmt.Errorf("limit: %w", err))
	}
	return limit, nil
}

// showLane returns a lane as the API shows it.
func showLane(l *queue.Lane) QueueLane {
	shown := QueueLane{
		Lane: l.ID, Name: l.Block, Instance: l.Instance, Chat: l.Chat, Entries: l.Entries, Bytes: l.Bytes, Oldest: l.Oldest, State: l.State,
		Round: l.Round, Next: l.Next.UTC(), Reason: l.Why,
	}
	if n := len(l.Answers); n > 0 {
		last := QueueAnswer(l.Answers[n-1])
		shown.Answer = &last
	}
	return shown
}

// lanes lists the lanes, the one with the oldest first entry first.
func (e *Edge) lanes(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "name", "instance", "limit")
	if err != nil {
		return err
	}
	limit, err := limitOf(asked, 0)
	if err != nil {
		return err
	}
	target := targetOf(asked)
	out := answer(w)
	for n, lanes := 0, d.Lanes(); len(lanes) > 0 && (limit == 0 || n < limit); lanes = lanes[1:] {
		l := &lanes[0]
		if target.Block != "" && target.Block != l.Block || target.Instance != "" && target.Instance != l.Instance {
			continue
		}
		n++
		if err := out.write(showLane(l)); err != nil {
			return out.end(err)
		}
	}
	return nil
}

// How many entries of a lane are shown, if nothing is said and at most. Each is read from the file.
const (
	entriesShown     = 100
	mostEntriesShown = 1000
)

// lane shows a lane: its line, and behind it one line for each of its first entries.
func (e *Edge) lane(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "limit")
	if err != nil {
		return err
	}
	limit, err := limitOf(asked, entriesShown)
	if err != nil {
		return err
	}
	if limit > mostEntriesShown {
		return badRequest(fmt.Errorf("limit: want at most %d", mostEntriesShown))
	}
	l, items, err := d.Entries(r.PathValue("lane"), limit)
	if err != nil {
		return queueError(err)
	}
	out := answer(w)
	if err := out.write(showLane(&l)); err != nil {
		return out.end(err)
	}
	for _, item := range items {
		if err := out.write(QueueEntry{item.Seq, item.Received, item.Size, item.Chat, item.ID, item.Type, item.Message}); err != nil {
			return out.end(err)
		}
	}
	return nil
}

// queueState returns what the queue holds, and what the operator has ordered.
func (e *Edge) queueState(w http.ResponseWriter, r *http.Request) error {
	d, _, err := e.queueOf(r)
	if err != nil {
		return err
	}
	return answerState(w, d)
}

// answerState answers with the state of the queue.
func answerState(w http.ResponseWriter, d *queue.Dispatcher) error {
	s, c := d.Summary(), d.Control()
	if c.Paused == nil {
		c.Paused = []queue.Target{}
	}
	var crowded []QueueCrowd
	for _, c := range s.Crowded {
		crowded = append(crowded, QueueCrowd{c.Block, c.Places, c.Since.UTC(), c.Ready})
	}
	return answer(w).write(QueueState{
		Entries: s.Entries, Bytes: s.Bytes, MaxBytes: s.MaxBytes, Lanes: s.Lanes, Waiting: s.Waiting, InFlight: s.InFlight,
		Paused: c.Paused, Draining: c.Draining, Crowded: crowded,
	})
}

// queueError gives an error of the queue its status.
func queueError(err error) error {
	switch {
	case errors.Is(err, queue.ErrNoLane):
		return notFound(err)
	case errors.Is(err, queue.ErrBusy), errors.Is(err, queue.ErrPassed):
		return conflict(err)
	case errors.Is(err, queue.ErrEmpty):
		return badRequest(fmt.Errorf("from: %w", err))
	case errors.Is(err, queue.ErrNobody):
		return badRequest(fmt.Errorf("to: %w", err))
	case errors.Is(err, queue.ErrKnown):
		return badRequest(fmt.Errorf("from: %w; its notifications are delivered as they are", err))
	}
	return err
}
