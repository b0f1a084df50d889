package greenapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// findings are what in this config loses notifications or exposes them.
func (a *App) findings() []doctor.Finding { return doctor.Examine(a.facts()) }

// facts are what the doctor has to know of this config.
func (a *App) facts() (c doctor.Config) {
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		h := a.blocks[name].handler
		b := doctor.Block{
			Name: name, Handler: h, Server: h.server, Open: h.IPFilter.isOpen() && h.Auth.isOpen(),
			Vendor: h.IPFilter.hasVendorList(), Timeout: h.limits.Timeout,
		}
		if set := h.Auth.set.Load(); set != nil {
			b.Shortest = set.Shortest
		}
		c.Blocks = append(c.Blocks, b)
		if path, err := resolve(h.Auth.Instances); err == nil {
			c.Files = append(c.Files, doctor.File{Path: path, Said: h.Auth.Instances, Deny: 0o004})
		}
	}
	path, said := a.Quarantine.Path, a.Quarantine.said
	file := filepath.Join(path, quarantine.FileName)
	c.Files = append(c.Files,
		doctor.File{Path: path, Said: said, Deny: 0o077},
		doctor.File{Path: file, Said: filepath.Join(said, quarantine.FileName), Deny: 0o077})
	c.Quarantine = doctor.Quarantine{Path: path, Said: said, File: file, MaxSize: a.Quarantine.MaxSize}
	c.Addresses, _ = time.Parse(time.DateOnly, address.VendorDate) // a constant
	return c
}

// hasVendorList reports whether the gate lets in the addresses that GREEN-API publishes.
func (f *IPFilter) hasVendorList() bool {
	if f.Off {
		return false
	}
	if len(f.Allow) == 0 && len(f.SourceRaw) == 0 && len(f.sources) == 0 || slices.ContainsFunc(f.Allow, func(text string) bool {
		return slices.Contains(strings.Fields(text), vendorList)
	}) {
		return true
	}
	return slices.ContainsFunc(f.sources, func(source caddyhttp.IPRangeSource) bool {
		switch source.(type) {
		case VendorAddresses, *VendorAddresses:
			return true
		}
		return false
	})
}

// examining is told of each app that is given up, while a config is examined. Caddy hands out no app of a config that it
// does not start.
var examining atomic.Pointer[func(*App)]

// examine provisions a config as `caddy validate` does, without a line in a log, and returns what the doctor has to know
// of it. Nothing is started.
func examine(config []byte) (facts doctor.Config, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(config), &parsed); err != nil {
		return facts, fmt.Errorf("decoding config: %w", err)
	}
	silent := caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "stderr"}`), Level: "FATAL"} // Caddy says where it redirects a log
	parsed.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: silent}}}
	var app *App
	look := func(a *App) { app = a }
	examining.Store(&look)
	defer examining.Store(nil)
	if err := caddy.Validate(&parsed); err != nil || app == nil {
		return facts, err
	}
	return app.facts(), nil
}
