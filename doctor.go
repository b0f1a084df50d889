package greenapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/queue/bolt"
)

// findings returns what in this config loses notifications or exposes them.
func (a *App) findings() []doctor.Finding { return doctor.Examine(a.facts()) }

// facts returns what the doctor needs to know about this config.
func (a *App) facts() (c doctor.Config) {
	for _, name := range slices.Sorted(maps.Keys(a.blocks)) {
		h := a.blocks[name].handler
		b := doctor.Block{
			Name: name, Handler: h, Server: h.server, Open: h.IPFilter.isOpen() && h.Auth.isOpen(),
			Vendor: h.IPFilter.hasVendorList(), Timeout: h.limits.Timeout, Queued: h.Queue != nil,
		}
		if b.Queued {
			b.Timeout = max(defaultTimeout, h.limits.AttemptTimeout) // no further attempt begins
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
	c.Quarantine = doctor.Store{Path: path, Said: said, File: file, MaxSize: a.Quarantine.MaxSize}
	if b, ours := a.engine.(*BoltQueue); ours && (a.queued || b.Stored()) {
		c.Queue = doctor.Store{Path: b.Path, Said: b.said, File: filepath.Join(b.Path, bolt.FileName), MaxSize: b.MaxSize}
		c.Files = append(c.Files, doctor.File{Path: c.Queue.File, Said: filepath.Join(b.said, bolt.FileName), Deny: 0o077})
		if b.Path != path {
			c.Files = append(c.Files, doctor.File{Path: b.Path, Said: b.said, Deny: 0o077})
		}
	}
	c.Addresses, _ = time.Parse(time.DateOnly, address.VendorDate) // a constant
	c.Sender = address.Vendor()[0].Addr()
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

// examine provisions a config as `caddy validate` does, but logs nothing, and returns what the doctor needs
// to know about it. It starts nothing.
func examine(config []byte) (facts doctor.Config, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if dir, err := os.MkdirTemp("", "green-api-doctor-"); err == nil { // there may be no such place in a container
		defer os.RemoveAll(dir)
		if facts, err := examineIn(dir, config); err == nil {
			return facts, nil
		}
	}
	return examineIn("", config) // it may need something that its storage has
}

// examineIn is examine with Caddy's default storage in a directory of its own unless that is "". Caddy creates a
// certificate authority in its storage while it provisions a config, which would then belong to whoever asked the
// doctor.
func examineIn(storage string, config []byte) (facts doctor.Config, err error) {
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(config), &parsed); err != nil {
		return facts, fmt.Errorf("decoding config: %w", err)
	}
	silent := caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "stderr"}`), Level: "FATAL"} // silent because Caddy logs where it redirects a log
	parsed.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: silent}}}
	if parsed.StorageRaw == nil && storage != "" {
		parsed.StorageRaw = caddyconfig.JSONModuleObject(map[string]string{"root": storage}, "module", "file_system", nil)
	}
	var app *App
	look := func(a *App) { app = a }
	examining.Store(&look)
	defer examining.Store(nil)
	if err := caddy.Validate(&parsed); err != nil || app == nil {
		return facts, err
	}
	return app.facts(), nil
}
