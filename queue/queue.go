// Package queue holds notifications between the sender's 200 and a handler's 2xx.
//
// A Store keeps records durably and hands them out. It knows neither keys nor retries: a Dispatcher sorts what it
// hands out into lanes, one for each instance or chat, and delivers each lane in order. So all engines have the
// same semantics.
//
// Delivery is at least once: a crash between a handler's 2xx and the removal of the record delivers that record
// again, but never before an earlier one of its lane that no handler has taken.
package queue

import (
	"context"
	"errors"
	"time"
)

// Errors of a Store, to be told apart with errors.Is.
var (
	ErrFull         = errors.New("queue is full")
	ErrInstanceFull = errors.New("queue holds as many notifications of the instance as it may")
	ErrTooLarge     = errors.New("notification is too large for the queue")
	ErrUnavailable  = errors.New("queue is unavailable")
	ErrNotFound     = errors.New("no such record in the queue")
	ErrDamaged      = errors.New("queue is damaged")
	ErrVersion      = errors.New("queue is of an unknown version")
	ErrLocked       = errors.New("queue is locked")
	ErrClosed       = errors.New("queue is closed")
)

// A Store keeps records durably until they are done. It hands out those of one instance in the order of their Puts,
// to one holder at a time. Its methods are safe for concurrent use, but the Puts of one instance must come one
// after another, as the sender's do: those that overlap have no order.
type Store interface {
	// Put stores a record. When err is nil, it is on disk, or on a majority of servers. The record must not change
	// any more.
	//
	// perInstance is how many records of the instance the store may hold, 0 for any number. Put returns
	// ErrInstanceFull, ErrFull or ErrTooLarge, and has stored nothing, if there is no room. If it fails otherwise,
	// or ctx ends first, the error is ErrUnavailable or another one, and the record may be stored all the same.
	//
	// The sender cannot know that, and sends the same body again. Put then stores nothing, and duplicate is true:
	// the instance's latest record in the store has this body, and its Put did not return nil in this process. A
	// record that is found when the store is opened counts as such a one.
	Put(ctx context.Context, r *Record, perInstance int) (duplicate bool, err error)

	// Serve calls take, each in a goroutine of its own, with every share of the store that this process gains,
	// until ctx ends. It returns when all of them have returned. A store that other processes use, too, gives them a
	// share when take has returned, or does not for some time.
	Serve(ctx context.Context, take func(Share)) error

	// Control returns what the operator has ordered.
	Control() Control

	// SetControl replaces it, durably if err is nil.
	SetControl(Control) error

	// LaneKey returns the random key of the store, of which NewLaneKey made one when the store was made: without it, the
	// ID of a lane tells nothing of its chat. It is the same across restarts, and for all processes that use the store,
	// as soon as the store has handed out anything.
	LaneKey() []byte

	Stats() Stats

	// Close waits for the calls in progress.
	Close() error
}

// A SharedStore is a Store that other processes use, too. What one of them orders, all follow. Its Stats say which part
// this process has.
type SharedStore interface {
	Store

	// Changed has the store call changed each time that Control returns something else that SetControl of this
	// process has not set, and before it hands out anything.
	Changed(changed func())
}

// An Engine opens stores. A module of Caddy's namespace green_api.queues is one.
type Engine interface {
	// Key identifies a store: two configs with the same Key share it.
	Key() string

	// Open opens the store, and creates it if it is missing.
	Open() (Store, error)

	// Stored reports whether there may be something in the store. It opens nothing.
	Stored() bool

	// Apply applies those settings to an open store that may change while it is open.
	Apply(Store)
}

// A Share is a part of a store that this process holds: all records of some instances.
type Share interface {
	// Next returns the items one after another, at first those that the store held when the share was gained. It
	// waits for one until ctx ends or the share is lost, and then returns an error. One goroutine calls it.
	Next(ctx context.Context) (Item, error)

	// Load returns the record of an item, ErrNotFound if it is done.
	Load(seq uint64) (*Record, error)

	// Done removes an item, durably if err is nil. It does nothing for an item that is done.
	Done(seq uint64) error

	// Lost is closed before any other process may gain the share. No delivery may begin after that.
	Lost() <-chan struct{}
}

// An Item is what a lane has to know of a record.
type Item struct {
	Seq      uint64 // position in the store, rising with each Put of an instance
	Block    string
	Instance string
	Chat     string
	Received time.Time
	Size     int // bytes of the body
}

// Stats say how full a store is.
type Stats struct {
	Entries  int
	Bytes    int64 // in use
	MaxBytes int64 // that it may use
	LastSeq  uint64
	Others   int   // of the entries, those that other processes hold
	Away     bool  // the store cannot be reached
	Put      int64 // records stored, including those that were found when the store was opened

	// Of a SharedStore only.
	Shares int    // that this process holds, or would get as soon as they have something
	Gained int64  // how often it has begun to hold one
	Place  string // where the records are: two stores with the same one have the same records; "" if that is not known
}

// Control is what the operator has ordered. It survives a restart.
type Control struct {
	// Draining means that nothing more is taken in.
	Draining bool `json:"draining,omitempty"`

	// Paused lists what is not delivered. It is taken in all the same.
	Paused []Target `json:"paused,omitempty"`

	// Moves lists records that another block delivers.
	Moves []Move `json:"moves,omitempty"`
}

// A Target is what a pause applies to: all of the queue if it is empty.
type Target struct {
	Block    string `json:"name,omitempty"` // "" for any
	Instance string `json:"instance,omitempty"`
}

// covers reports whether a target includes the items of a block and an instance.
func (t Target) covers(block, instance string) bool {
	return (t.Block == "" || t.Block == block) && (t.Instance == "" || t.Instance == instance)
}

// A Move hands the records of one block to another.
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
	UpTo uint64 `json:"up_to"` // the last Seq that it applies to; later ones belong to a new block of the name
}
