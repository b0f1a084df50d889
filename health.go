package greenapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// health is whether this process is ready for notifications. While the first config starts, and while the
// last one stops, no config is in effect: then the operator, which an app holds, shows that there is one.
func health() (h api.Health) {
	app := activeApp()
	_, held := operators.References(theOperator)
	switch {
	case app != nil:
		h = app.health()
	case held && !caddy.Exiting():
		h.Reasons = []api.Unready{api.Starting}
	case !caddy.Exiting():
		h.Reasons = []api.Unready{api.NotConfigured}
	}
	if caddy.Exiting() {
		h.Reasons = append(h.Reasons, api.Ending)
	}
	return h
}

// health is whether this config is ready for notifications.
func (a *App) health() (h api.Health) {
	h.Config = a.fingerprint()
	if a.loaded.IsZero() {
		h.Reasons = append(h.Reasons, api.Starting)
		return h
	}
	h.Loaded = a.loaded.UTC().Format(time.RFC3339Nano)
	if !a.quarantineOpen() {
		h.Reasons = append(h.Reasons, api.QuarantineClosed)
	}
	return h
}

// quarantineOpen reports whether entries can be read. A file that looks damaged is shut for a minute.
func (a *App) quarantineOpen() bool {
	store, release, err := a.openQuarantine()
	if err != nil {
		return false
	}
	defer release()
	_, err = store.Get("") // no entry has that id
	return errors.Is(err, quarantine.ErrNotFound)
}

// fingerprint is the digest of the app and its blocks, as they were loaded: two configs have the same if
// they differ in nothing that is about green_api.
func (a *App) fingerprint() string {
	sum := sha256.New()
	_, _ = sum.Write(a.config) // never fails
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		fmt.Fprintf(sum, "\n%s", a.blocks[name].config) // JSON, which has no line end in it
	}
	return hex.EncodeToString(sum.Sum(nil))
}
