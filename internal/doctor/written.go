package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Written is a config's JSON, before Caddy has provisioned it and cleared options.
type Written struct {
	Admin   string // the address of the admin API, "" if it is off
	Grace   time.Duration
	Servers []WrittenServer
}

// A WrittenServer is one server of the http app.
type WrittenServer struct {
	Listen   []string
	Wrappers []string // of its listeners, by name
	GreenAPI bool     // it has a green_api block
	Loose    bool     // it trusts proxies that are not strict
}

// Read reads a config. It leaves to Caddy whatever it does not know or cannot read.
func Read(config []byte) Written {
	var parsed struct {
		Admin struct {
			Disabled bool   `json:"disabled"`
			Listen   string `json:"listen"`
		} `json:"admin"`
		Apps struct {
			HTTP struct {
				Grace   caddy.Duration             `json:"grace_period"`
				Servers map[string]json.RawMessage `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	w := Written{Admin: caddy.DefaultAdminListen}
	if json.Unmarshal(config, &parsed) != nil {
		return w
	}
	if parsed.Admin.Listen != "" {
		w.Admin = parsed.Admin.Listen
	}
	if parsed.Admin.Disabled {
		w.Admin = ""
	}
	w.Grace = time.Duration(parsed.Apps.HTTP.Grace)
	for _, name := range slices.Sorted(maps.Keys(parsed.Apps.HTTP.Servers)) {
		w.Servers = append(w.Servers, readServer(parsed.Apps.HTTP.Servers[name]))
	}
	return w
}

func readServer(text []byte) WrittenServer {
	var parsed struct {
		Listen   []string `json:"listen"`
		Wrappers []struct {
			Name string `json:"wrapper"`
		} `json:"listener_wrappers"`
		Routes  any             `json:"routes"`
		Proxies json.RawMessage `json:"trusted_proxies"`
		Unix    bool            `json:"trusted_proxies_unix"`
		Strict  int             `json:"trusted_proxies_strict"`
	}
	if json.Unmarshal(text, &parsed) != nil {
		return WrittenServer{}
	}
	s := WrittenServer{
		Listen: parsed.Listen, GreenAPI: hasGreenAPI(parsed.Routes),
		Loose: (parsed.Proxies != nil || parsed.Unix) && parsed.Strict == 0,
	}
	for _, wrapper := range parsed.Wrappers {
		s.Wrappers = append(s.Wrappers, wrapper.Name)
	}
	return s
}

// hasGreenAPI reports whether routes have a green_api block, however deep.
func hasGreenAPI(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		if v["handler"] == "green_api" {
			return true
		}
		for _, inside := range v {
			if hasGreenAPI(inside) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasGreenAPI)
	}
	return false
}

func (w Written) examine() (found []Finding) {
	found = adminOpen(w.Admin)
	for _, s := range w.Servers {
		if !s.GreenAPI {
			continue
		}
		found = append(found, s.notStrict()...)
		found = append(found, s.unwrapped()...)
	}
	return found
}

// adminOpen finds an admin API that other users of the machine, or other machines, can use.
func adminOpen(listen string) []Finding {
	if listen == "" {
		return nil
	}
	address, err := caddy.ParseNetworkAddress(listen)
	if err != nil || address.IsUnixNetwork() || address.IsFdNetwork() {
		return nil
	}
	f := Finding{
		Kind: AdminOpen, Level: Warn, Where: "admin " + listen,
		Message: "each user and program of this machine can read through the admin API what the quarantine keeps, and change the config",
		Fix:     "say 'admin unix//run/caddy/admin.sock' in the global options",
	}
	if ip, err := netip.ParseAddr(address.Host); address.Host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		f.Level, f.Message = Error, "other machines can read through the admin API what the quarantine keeps, and change the config"
	}
	return []Finding{f}
}

const strictFix = "say 'trusted_proxies_strict' in the global option 'servers'"

// notStrict finds proxies that pass on any address that a client invents. If a block checks addresses, such
// a config does not load.
func (s WrittenServer) notStrict() []Finding {
	if !s.Loose {
		return nil
	}
	return []Finding{{
		Kind: ProxiesNotStrict, Level: Warn, Where: strings.Join(s.Listen, " "),
		Message: "the server trusts proxies without trusted_proxies_strict: anyone can put any address into X-Forwarded-For, and into the log",
		Fix:     strictFix,
	}}
}

// listenerWrapper is the module that breaks no connection while a supervisor holds the socket.
const listenerWrapper = "green_api"

// unwrapped finds a server on a socket held by a supervisor that drops accepted connections at a restart.
func (s WrittenServer) unwrapped() []Finding {
	given := slices.DeleteFunc(slices.Clone(s.Listen), func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		return err != nil || address.Network != "fd"
	})
	if len(given) == 0 || slices.Contains(s.Wrappers, listenerWrapper) {
		return nil
	}
	return []Finding{{
		Kind: NoListenerWrapper, Level: Warn, Where: strings.Join(given, " "),
		Message: "a restart drops connections that it has accepted on the socket that systemd holds",
		Fix:     fmt.Sprintf("say 'listener_wrappers' in the global option 'servers', with the lines '%s' and 'tls' in it", listenerWrapper),
	}}
}
