package greenapi

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// watchSilence reports configured instances that have sent nothing for long, until ctx is over.
func (a *App) watchSilence(ctx context.Context) {
	lengths := a.silences()
	if len(lengths) == 0 {
		return
	}
	ticker := time.NewTicker(min(max(lengths[0]/20, 50*time.Millisecond), 30*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			a.tellOfSilent(lengths, now)
		}
	}
}

// silences returns the lengths that the alerts ask for, the shortest first.
func (a *App) silences() (lengths []time.Duration) {
	for _, alert := range a.Alerts {
		if alert.Silence > 0 {
			lengths = append(lengths, time.Duration(alert.Silence))
		}
	}
	slices.Sort(lengths)
	return slices.Compact(lengths)
}

func (a *App) tellOfSilent(lengths []time.Duration, now time.Time) {
	var configured []string
	for _, b := range a.blocks {
		configured = append(configured, b.handler.configuredInstances()...)
	}
	for _, one := range a.operator.silent.Watch(configured, lengths, now) {
		a.logger.Warn("nothing has come from an instance for long", zap.String("instance", one.Instance), zap.Duration("silence", one.Length))
		a.operator.desk.Tell(outcome.Note{Reason: reason.Silence, Kind: notification.KindNone, Level: zap.WarnLevel, Instance: one.Instance, Silence: one.Length, At: now})
	}
}
