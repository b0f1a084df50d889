package outcome

import (
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// A Note is one thing to tell the operator.
type Note struct {
	Reason   reason.Reason
	Kind     string // the type of notification, from a closed list
	Level    zapcore.Level
	Instance string
	Example  string // the id of an entry in the quarantine
	More     string // what only this note says
	At       time.Time
	Silence  time.Duration // only for alerts that ask for a silence of this length; 0 for all

	// Trouble names what is in trouble, such as one handler; with the reason Recovered, what no longer is.
	// "" for what cannot end.
	Trouble string
}
