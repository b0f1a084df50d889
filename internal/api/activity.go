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
)

// Activity is what people did lately. It outlives a config.
type Activity struct {
	mu   sync.Mutex
	last []Action // the oldest first, at most mostActions
}

// Action is something that a person did. It never names a chat, which is a phone number.
type Action struct {
	At           time.Time `json:"at"`
	User         string    `json:"user,omitempty"`      // as the login knows it; "" if nobody logged in
	Client       string    `json:"client_ip,omitempty"` // "" if it came through the admin API
	Action       string    `json:"action"`
	QuarantineID string    `json:"quarantine_id,omitempty"`
	Count        int       `json:"count,omitempty"` // of entries or lanes that were meant
}

const (
	mostActions  = 500
	longestField = 200 // bytes
)

// Note keeps an action.
func (a *Activity) Note(done Action) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.last) == mostActions {
		a.last = slices.Delete(a.last, 0, 1)
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
	e.Activity.Note(action)
	fields := []zap.Field{zap.String("action", action.Action), zap.String("user", action.User), zap.String("client_ip", action.Client)}
	if action.QuarantineID != "" {
		fields = append(fields, zap.String("quarantine_id", action.QuarantineID))
	}
	if action.Count > 0 {
		fields = append(fields, zap.Int("count", action.Count))
	}
	e.Log.Info("console action", fields...)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
