package queue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"time"
)

// A putting is a Put that has not returned nil. Its sender sends the body again if it gets no answer or a 503. Until
// then the record may have been stored, delivered and removed, so that the store no longer knows of it.
type putting struct {
	received []time.Time       // of the records that may have been stored: the sender may have come several times
	found    bool              // one was in the store at the start; its body is not known before it leaves
	body     []byte            // while Put runs
	sum      [sha256.Size]byte // of the body, once Put has failed
	at       time.Time         // of that; zero before
	left     bool              // one of the records has been delivered or quarantined
}

// rememberPut is how long it is remembered that a Put has failed. GREEN-API gives up after 3 minutes, and comes again
// a minute later.
const rememberPut = 10 * time.Minute

// manyPuts is how many times of receipt are remembered of a record whose Put fails again and again.
const manyPuts = 16

func (p *putting) has(body []byte) bool {
	switch {
	case p.found && !p.left:
		return false
	case p.at.IsZero():
		return bytes.Equal(p.body, body)
	}
	return p.sum == sha256.Sum256(body)
}

// Put stores a record. Beside the errors of Store.Put, it returns ErrDraining. A record that an earlier Put has stored
// without returning nil is a duplicate even if it has left the store since.
func (d *Dispatcher) Put(ctx context.Context, r *Record, perInstance int) (duplicate bool, err error) {
	p, err := d.beginPut(r)
	if p == nil {
		return err == nil, err
	}
	duplicate, err = d.store.Put(ctx, r, perInstance)
	d.endPut(p, r, duplicate, err)
	return duplicate, err
}

// beginPut returns nil and no error if the record is a duplicate.
func (d *Dispatcher) beginPut(r *Record) (*putting, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.putting[r.Instance]
	again := p != nil && p.has(r.Body)
	switch {
	case again && p.left:
		delete(d.putting, r.Instance)
		return nil, nil //nolint:nilnil // as the comment says
	case d.control.Draining:
		return nil, ErrDraining
	case !again:
		p = &putting{body: r.Body}
		d.putting[r.Instance] = p
	}
	if !slices.Contains(p.received, r.Received) { // otherwise it only waited for room
		p.received = append(p.received[max(0, len(p.received)-manyPuts+1):], r.Received)
	}
	key := sourceKey{r.Block, r.Instance}
	c := d.coming[key]
	d.coming[key] = coming{c.n + 1, time.Now()}
	return p, nil
}

func (d *Dispatcher) endPut(p *putting, r *Record, duplicate bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil || duplicate {
		d.arrives(sourceKey{r.Block, r.Instance})
	}
	if d.putting[r.Instance] != p {
		return
	}
	stored := !errors.Is(err, ErrFull) && !errors.Is(err, ErrInstanceFull) && !errors.Is(err, ErrTooLarge)
	switch {
	case err == nil, !stored && p.at.IsZero():
		delete(d.putting, r.Instance)
	case stored:
		p.body, p.sum, p.at = nil, sha256.Sum256(r.Body), time.Now()
	}
}

// leaves notes that a record has been delivered or quarantined, before it is removed from the store.
func (d *Dispatcher) leaves(r *Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.putting[r.Instance]; p != nil && slices.ContainsFunc(p.received, r.Received.Equal) {
		p.left = true
		if p.found {
			p.sum = sha256.Sum256(r.Body)
		}
	}
}

// finds notes an item that the store held at the start. The latest one of its instance may be one that the sender has
// had no answer for. The caller holds the lock.
func (d *Dispatcher) finds(item Item) {
	if p := d.putting[item.Instance]; p == nil || p.found {
		d.putting[item.Instance] = &putting{received: []time.Time{item.Received}, found: true, at: time.Now()}
	}
}

// forgetPuts forgets Puts that failed long ago, and what has not come since.
func (d *Dispatcher) forgetPuts(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.putting, func(_ string, p *putting) bool { return !p.at.IsZero() && now.Sub(p.at) > rememberPut })
	maps.DeleteFunc(d.coming, func(_ sourceKey, c coming) bool { return now.Sub(c.last) > sortTime })
}

type sourceKey struct{ block, instance string }

// coming counts records of a block and an instance whose Put has not failed and that are in no lane yet. They may be another
// process's, and never come.
type coming struct {
	n    int
	last time.Time // one was put
}

// arrives notes that one of them has come. The caller holds the lock.
func (d *Dispatcher) arrives(key sourceKey) {
	if c := d.coming[key]; c.n > 1 {
		d.coming[key] = coming{c.n - 1, c.last}
	} else {
		delete(d.coming, key)
	}
}
