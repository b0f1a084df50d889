package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// Activity is what people did lately, and what came of it. It outlives a config.
type Activity struct {
	mu   sync.Mutex
	last []Action // the oldest first, at most mostActions
}

// Action is something that a person did, or Reloaded or ReplayEnded. It never names a chat, which is a phone number.
type Action struct {
	At           time.Time `json:"at"`
	User         string    `json:"user,omitempty"`      // as the login knows it; "" if nobody logged in
	Client       string    `json:"client_ip,omitempty"` // "" if it came through the admin API
	Action       string    `json:"action"`
	QuarantineID string    `json:"quarantine_id,omitempty"`
	Count        int       `json:"count,omitempty"` // of entries or lanes that were meant

	// What an order to the queue is about: all of it if nothing is said.
	Name     string `json:"name,omitempty"` // of a block
	Instance string `json:"instance,omitempty"`
	Lane     string `json:"lane,omitempty"` // its ID

	Replay *Replayed `json:"replay,omitempty"` // with the action ReplayEnded
}

// Replayed says how many entries of a replay ended how.
type Replayed struct {
	Delivered int `json:"delivered"`
	Failed    int `json:"failed"`
	Kept      int `json:"kept"`
	Skipped   int `json:"skipped"`
}

// Actions that the edge notes by itself.
const (
	Reloaded    = "reload" // a config took effect
	ReplayEnded = "replay ended"
)

const (
	mostActions  = 500
	mostOfKind   = 100 // of those that may come by the hundred, such as logins
	longestField = 200 // bytes
)

// The actions of which mostOfKind are kept, so that they do not push out what somebody changed.
const (
	actionLogin  = "login"
	actionLogout = "logout"
)

// Note keeps an action.
func (a *Activity) Note(done Action) {
	a.mu.Lock()
	defer a.mu.Unlock()
	drop := -1
	if len(a.last) == mostActions {
		drop = 0
	}
	switch done.Action {
	case actionLogin, actionLogout, Reloaded, ReplayEnded:
		n := 0
		for i, one := range slices.Backward(a.last) {
			if one.Action != done.Action {
				continue
			}
			if n++; n == mostOfKind {
				drop = i
			}
		}
	}
	if drop >= 0 {
		a.last = slices.Delete(a.last, drop, drop+1)
	}
	a.last = append(a.last, done)
}

// Last returns the last actions, the newest first.
func (a *Activity) Last() []Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := slices.Clone(a.last)
	slices.Reverse(last)
	return last
}

func (e *Edge) activity(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, struct {
		Actions []Action `json:"actions"`
	}{append([]Action{}, e.Activity.Last()...)})
}

// noteActivity logs what somebody is about to do in the console, and keeps it.
func (e *Edge) noteActivity(w http.ResponseWriter, r *http.Request) error {
	asked, err := parametersOf(r)
	if err != nil {
		return badRequest(err)
	}
	action := Action{At: time.Now().UTC()}
	for name, values := range asked {
		text := values[0]
		switch {
		case len(values) > 1:
			err = errors.New("more than one")
		case len(text) > longestField:
			err = fmt.Errorf("want at most %d bytes", longestField)
		case name == "user":
			action.User = text
		case name == "client_ip":
			action.Client = text
		case name == "action":
			action.Action = text
		case name == "quarantine_id":
			action.QuarantineID = text
		case name == "name":
			action.Name = text
		case name == "instance":
			action.Instance = text
		case name == "lane":
			action.Lane = text
		case name == "count":
			if action.Count, err = strconv.Atoi(text); err != nil || action.Count < 0 {
				err = fmt.Errorf("invalid number %q", outcome.Clip(text))
			}
		default:
			err = errors.New("unknown parameter")
		}
		if err != nil {
			return badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	if action.Action == "" {
		return badRequest(errors.New("action: want what is done"))
	}
	e.locate(&action)
	e.Activity.Note(action)
	fields := []zap.Field{zap.String("action", action.Action), zap.String("user", action.User), zap.String("client_ip", action.Client)}
	if action.QuarantineID != "" {
		fields = append(fields, zap.String("quarantine_id", action.QuarantineID))
	}
	if action.Count > 0 {
		fields = append(fields, zap.Int("count", action.Count))
	}
	fields = append(fields, targetFields(queue.Target{Block: action.Name, Instance: action.Instance})...)
	if action.Lane != "" {
		fields = append(fields, zap.String("lane", action.Lane))
	}
	e.Log.Info("console action", fields...)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// locate adds to an action whose the lane is that it is about: the lane may be gone when somebody reads of it.
func (e *Edge) locate(action *Action) {
	if action.Lane == "" || action.Name != "" || action.Instance != "" || e.Queue == nil {
		return
	}
	d := e.Queue()
	if d == nil {
		return
	}
	if l, _, err := d.Entries(action.Lane, 0); err == nil {
		action.Name, action.Instance = l.Block, l.Instance
	}
}
