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
	More     string // what only this note has to say
	At       time.Time
	Silence  time.Duration // only for alerts that ask for a silence of this length; 0 for all

	// Trouble is what is in trouble, such as one handler; with the reason Recovered, what is out of it.
	// "" for what cannot be over.
	Trouble string
}
