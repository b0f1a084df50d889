package greenapi

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

const (
	reasonExpiring = "expiring"

	// expiryNotice is how long before they are deleted the operator is told of entries.
	expiryNotice = 48 * time.Hour

	errStop = stopError("enough")
)

type stopError string

func (e stopError) Error() string { return string(e) }

// expire deletes what is older than max_age, as long as the config runs.
func (a *App) expire(ctx context.Context) {
	maxAge := time.Duration(a.Quarantine.MaxAge)
	if maxAge == 0 {
		return
	}
	ticker := time.NewTicker(min(max(maxAge/20, 100*time.Millisecond), time.Hour))
	defer ticker.Stop()
	for {
		if err := a.expireNow(maxAge, time.Now()); err != nil {
			a.logger.Error("quarantine entries older than max_age could not be deleted", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (a *App) expireNow(maxAge time.Duration, now time.Time) error {
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	var old []string
	var soon int
	var first quarantine.Entry
	everything := filter{}
	err = everything.each(store, func(e quarantine.Entry) error { // in the order of receipt
		switch age := now.Sub(e.Received); {
		case e.Received.IsZero(): // it cannot be read, which does not make it old
		case age > maxAge:
			old = append(old, e.ID)
		case maxAge > expiryNotice && age > maxAge-expiryNotice:
			if soon++; soon == 1 {
				first = e
			}
		default:
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if soon > 0 && a.operator.daily.first(reasonExpiring, now) {
		a.operator.alerts.tell(note{
			reason: reasonExpiring, typ: typeNone, level: zapcore.WarnLevel, instance: first.Instance, example: first.ID, at: now,
			more: strconv.Itoa(soon) + " will be deleted within 48 hours. Replay or export them: caddy green-api quarantine list.",
		})
	}
	if len(old) == 0 {
		return a.wipe(store)
	}
	deleted, err := store.Delete(old...)
	if err == nil {
		a.unwiped = true
		err = a.wipe(store)
	}
	if deleted > 0 {
		a.logger.Warn("quarantine entries deleted, they were older than max_age", zap.Int("count", deleted), zap.Duration("max_age", maxAge))
	}
	return err
}

// wipe takes what is left of deleted entries out of the file, until that was done once.
func (a *App) wipe(store *quarantine.Store) error {
	if !a.unwiped {
		return nil
	}
	err := store.Scrub()
	a.unwiped = err != nil
	return err
}
