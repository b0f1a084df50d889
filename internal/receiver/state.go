package receiver

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

// State is what /green_api/status shows of a receiver.
type State struct {
	Instance string        `json:"instance"`
	Name     string        `json:"name"`
	State    string        `json:"state"` // starting, standby, receiving or failing
	Reason   reason.Reason `json:"reason,omitempty"`
	Since    time.Time     `json:"since"`
}

// The states of a receiver.
const (
	Starting  = "starting"
	Standby   = "standby" // another edge receives for this instance
	Receiving = "receiving"
	Failing   = "failing"
)

// trouble is a failure that lasts.
type trouble struct {
	reason reason.Reason
	since  time.Time
	told   bool // logged at its level

	alerted bool // the operator was alerted, perhaps for another reason
}

func (r *receiver) standBy() {
	r.recovered("Another edge receives the notifications.")
	if r.enter(Standby, "") {
		r.config().Log.Info("another edge receives for the instance, this one stands by", zap.String("instance", r.instance))
	}
}

// failedToCall reports a failed call, and returns how long the API asks not to be called.
func (r *receiver) failedToCall(err error) time.Duration {
	var said *vendorapi.Error
	errors.As(err, &said)
	why, level := reason.Reason(reason.APIRefused), zapcore.ErrorLevel
	switch {
	case errors.Is(err, vendorapi.ErrWebhookURLSet):
		why = reason.WebhookURLSet
	case errors.Is(err, vendorapi.ErrUnavailable), errors.Is(err, vendorapi.ErrTooManyRequests):
		why, level = reason.APIUnavailable, zapcore.WarnLevel
	}
	r.fail(why, level, err)
	if said == nil {
		return 0
	}
	return said.RetryAfter
}

// fail reports a failure. The log gets it once, and again when it has outlasted Patience. The operator gets
// it each time; alerts are grouped.
func (r *receiver) fail(why reason.Reason, level zapcore.Level, err error) {
	now := time.Now()
	r.mu.Lock()
	if r.trouble.reason != why {
		r.trouble = trouble{reason: why, since: now, alerted: r.trouble.alerted}
	}
	first := r.trouble.since.Equal(now)
	if level == zapcore.WarnLevel && now.Sub(r.trouble.since) >= r.times.Patience {
		level = zapcore.ErrorLevel
	}
	write := first || level == zapcore.ErrorLevel && !r.trouble.told
	r.trouble.told = level == zapcore.ErrorLevel
	r.trouble.alerted = r.trouble.alerted || r.trouble.told
	since := r.trouble.since
	r.mu.Unlock()
	r.enter(Failing, why)
	c := r.config()
	err = c.Hide(err)
	if write {
		fields := []zap.Field{zap.String("instance", r.instance), zap.String("reason", string(why)), zap.String("api_url", c.APIURL), zap.Time("since", since), zap.Error(err)}
		if level == zapcore.ErrorLevel {
			c.Log.Error("notifications of the instance cannot be received", fields...)
		} else {
			c.Log.Warn("notifications of the instance cannot be received for now", fields...)
		}
	}
	if level == zapcore.ErrorLevel {
		c.Tell(outcome.Note{Reason: why, Kind: notification.KindNone, Level: level, Instance: r.instance, More: err.Error() + ".", At: now, Trouble: r.inTrouble()})
	}
}

// works ends a failure and tells the operator.
func (r *receiver) works() {
	r.leads()
	r.recovered("Notifications are received again.")
}

// leads ends a failure. It is not known yet whether the API works.
func (r *receiver) leads() {
	r.mu.Lock()
	was := r.trouble
	r.trouble = trouble{alerted: was.alerted}
	r.mu.Unlock()
	r.enter(Receiving, "")
	if was.reason != "" {
		r.config().Log.Info("notifications of the instance are received again",
			zap.String("instance", r.instance), zap.String("reason", string(was.reason)), zap.Duration("after", time.Since(was.since)))
	}
}

// inTrouble returns the trouble of an instance that is not received.
func (r *receiver) inTrouble() string { return "receiver " + r.instance }

// recovered tells the operator that the trouble is over, if they were told of it.
func (r *receiver) recovered(more string) {
	r.mu.Lock()
	alerted := r.trouble.alerted
	r.trouble.alerted = false
	r.mu.Unlock()
	if alerted {
		r.config().Tell(outcome.Note{
			Reason: reason.Recovered, Kind: notification.KindNone, Instance: r.instance, More: more, At: time.Now(), Trouble: r.inTrouble(),
		})
	}
}

// enter sets the state, and reports whether it has changed.
func (r *receiver) enter(state string, why reason.Reason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Instance, r.state.Name = r.instance, r.last.Block
	if r.state.State == state && r.state.Reason == why {
		return false
	}
	r.state.State, r.state.Reason, r.state.Since = state, why, time.Now()
	return true
}
