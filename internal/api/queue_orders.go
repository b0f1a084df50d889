package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// What the operator orders. Each order is logged; none is about a chat, which is a phone number.

// pause lets what the parameters select wait in the queue.
func (e *Edge) pause(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "name", "instance")
	if err != nil {
		return err
	}
	target := targetOf(asked)
	if !e.knows(d, target.Block) {
		return badRequest(fmt.Errorf("name: neither the config that runs nor the queue has a green_api block named %q; want one of %s", target.Block, e.blockNames()))
	}
	if err := d.Pause(target); err != nil {
		return queueError(err)
	}
	e.Log.Info("queue paused", targetFields(target)...)
	return answerState(w, d)
}

// knows reports whether a block is in the config or has something in the queue. "" is any block.
func (e *Edge) knows(d *queue.Dispatcher, block string) bool {
	return block == "" || slices.Contains(e.Blocks, block) ||
		slices.ContainsFunc(d.Lanes(), func(l queue.Lane) bool { return l.Block == block })
}

// resume ends the pause of what the parameters select. Without any, it ends all that was ordered, and so also lets
// the queue take in again. The answer says what is still paused, which a broader pause may cover.
func (e *Edge) resume(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "name", "instance")
	if err != nil {
		return err
	}
	target := targetOf(asked)
	if err := d.Resume(target); err != nil {
		return queueError(err)
	}
	if target == (queue.Target{}) && d.Control().Draining {
		if err := d.Drain(false); err != nil {
			return queueError(err)
		}
	}
	e.Log.Info("queue resumed", targetFields(target)...)
	return answerState(w, d)
}

// drain lets the queue deliver what it holds and take nothing in, or with off=true ends that.
func (e *Edge) drain(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "off")
	if err != nil {
		return err
	}
	off, err := flagOf(asked, "off")
	if err != nil {
		return err
	}
	if err := d.Drain(!off); err != nil {
		return queueError(err)
	}
	if off {
		e.Log.Info("queue takes in again")
	} else {
		e.Log.Info("queue is being drained")
	}
	return answerState(w, d)
}

var errNoRetry = errors.New("nothing said of what to retry; want lane, name, instance, or all=true")

// retry ends the wait of one lane, or of all that the parameters select.
func (e *Edge) retry(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "lane", "name", "instance", "all")
	if err != nil {
		return err
	}
	all, err := flagOf(asked, "all")
	if err != nil {
		return err
	}
	id, target := asked.Get("lane"), targetOf(asked)
	some := target != queue.Target{}
	switch {
	case id != "" && (some || all), some && all:
		return badRequest(errors.New("want either lane, or name and instance, or all=true"))
	case id == "" && !some && !all:
		return badRequest(errNoRetry)
	}
	var done QueueDone
	var n int
	fields := targetFields(target)
	if id == "" {
		n, done.Paused, done.NoHandler = d.RetryAll(target)
	} else {
		if n, err = retryLane(d, id); err != nil {
			return queueError(err)
		}
		fields = append(fields, zap.String("lane", id))
	}
	e.Log.Info("queue lanes retried", append(fields, zap.Int("count", n))...)
	done.Lanes = &n
	return answer(w).write(done)
}

// retryLane ends the wait of a lane. It returns 0 if the lane did not wait.
func retryLane(d *queue.Dispatcher, id string) (n int, err error) {
	l, _, err := d.Entries(id, 0)
	if err != nil {
		return 0, err
	}
	switch l.State {
	case queue.StatePaused:
		return 0, conflict(fmt.Errorf("the lane %s is paused; resume it", id))
	case queue.StateNoHandler:
		return 0, conflict(fmt.Errorf("the lane %s belongs to the block %q, which the config that runs does not have, or only without a reverse_proxy; move it to another one", id, l.Block))
	case queue.StateWaiting:
		n = 1
	}
	return n, d.Retry(id)
}

// skip moves the first notification of a lane into the quarantine. With seq, it must be that one.
func (e *Edge) skip(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "lane", "seq")
	if err != nil {
		return err
	}
	id := asked.Get("lane")
	if id == "" {
		return badRequest(errors.New("nothing said of what to skip; want lane"))
	}
	var seq uint64
	if text := asked.Get("seq"); text != "" {
		if seq, err = strconv.ParseUint(text, 10, 64); err != nil || seq == 0 {
			return badRequest(fmt.Errorf("seq: invalid value %q; want the seq of the lane's first entry", text))
		}
	}
	l, _, err := d.Entries(id, 0)
	if err == nil {
		err = d.Skip(id, seq)
	}
	if err != nil {
		return queueError(err)
	}
	e.Log.Info("queue entry skipped", zap.String("lane", id), zap.String("name", l.Block), zap.String("instance", l.Instance))
	n := 1
	return answer(w).write(QueueDone{Entries: &n})
}

// move hands the notifications of a block that the config no longer has to another one.
func (e *Edge) move(w http.ResponseWriter, r *http.Request) error {
	d, asked, err := e.queueOf(r, "from", OptionTo)
	if err != nil {
		return err
	}
	from, to := asked.Get("from"), asked.Get(OptionTo)
	switch {
	case from == "" || to == "":
		return badRequest(errors.New("nothing said of what to move; want from and to"))
	case !slices.Contains(e.Blocks, to):
		return badRequest(fmt.Errorf("to: the config that runs has no green_api block named %q; want one of %s", to, e.blockNames()))
	}
	n, err := d.Move(from, to)
	if err != nil {
		return queueError(err)
	}
	e.Log.Info("queue entries moved", zap.String("from", from), zap.String("to", to), zap.Int("count", n))
	return answer(w).write(QueueDone{Entries: &n})
}

// targetFields describe a target in a record: nothing for all of the queue.
func targetFields(t queue.Target) (fields []zap.Field) {
	if t.Block != "" {
		fields = append(fields, zap.String("name", t.Block))
	}
	if t.Instance != "" {
		fields = append(fields, zap.String("instance", t.Instance))
	}
	return fields
}
