package greenapi

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// silentInstances says of which configured instances nothing has come for long, across reloads. It
// knows each of them, however many they are, and no other.
type silentInstances struct {
	mu sync.Mutex
	of map[string]*watchedInstance
}

type watchedInstance struct {
	last time.Time       // when something came, or since when it is watched
	told []time.Duration // lengths of the silence since then that were told of
}

// A silence is as long as some alert wants to be told of.
type silence struct {
	instance string
	length   time.Duration
}

// saw notes that something came from an instance.
func (s *silentInstances) saw(instance string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.of[instance]; w != nil && at.After(w.last) {
		w.last, w.told = at, nil
	}
}

// watch returns the silences of those lengths that there are among the configured instances, each once.
func (s *silentInstances) watch(configured []string, lengths []time.Duration, now time.Time) (silent []silence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.of
	s.of = make(map[string]*watchedInstance, len(configured))
	for _, instance := range configured {
		w := before[instance]
		if w == nil {
			w = &watchedInstance{last: now}
		}
		s.of[instance] = w
	}
	for instance, w := range s.of {
		for _, length := range lengths {
			if now.Sub(w.last) >= length && !slices.Contains(w.told, length) {
				w.told = append(w.told, length)
				silent = append(silent, silence{instance, length})
			}
		}
	}
	return silent
}

// watchSilence tells of configured instances of which nothing has come for long.
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

// silences are the lengths that the alerts ask for, the shortest first.
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
	for _, one := range a.operator.silent.watch(configured, lengths, now) {
		a.logger.Warn("nothing has come from an instance for long", zap.String("instance", one.instance), zap.Duration("silence", one.length))
		a.operator.alerts.tell(outcome.Note{Reason: reason.Silence, Kind: notification.KindNone, Level: zap.WarnLevel, Instance: one.instance, Silence: one.length, At: now})
	}
}
