package greenapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func init() {
	caddy.RegisterModule(VendorAddresses{})
	caddy.RegisterModule(new(AddressFile))
}

// vendorList is the word for the vendor's addresses in `allow`.
const vendorList = "green_api"

var errProxyNotStrict = errors.New("the server trusts proxies but not trusted_proxies_strict, so that anyone could put " +
	"an allowed address into X-Forwarded-For; say 'trusted_proxies_strict' in the global option 'servers', or 'ip_filter off'")

// What `unlisted` can do with a request from an address that is not allowed.
const (
	unlistedRefuse = "refuse"
	unlistedPass   = "pass"
)

// IPFilter is the gate that decides which client addresses may send.
//
// It checks Caddy's client IP: the peer's address or, behind `trusted_proxies`, the one that they report.
// Such proxies must be strict (`trusted_proxies_strict`), or the config does not load. An IPv4 address
// written as IPv6 (`::ffff:203.0.113.7`) is the same as the IPv4 address, and a zone is ignored. A request
// without an address, such as one from a unix socket, is refused.
type IPFilter struct {
	// Lets every address in.
	Off bool `json:"off,omitempty"`

	// Addresses (203.0.113.7), CIDRs (203.0.113.0/24, 2001:db8::/32), `private_ranges`, or `green_api` for
	// those that GREEN-API publishes. Only what is listed is allowed. Placeholders `{env.*}` and `{file.*}`
	// are resolved at load. Default: `green_api`, unless there is a `source`.
	Allow []string `json:"allow,omitempty"`

	// Further lists, from any module in the namespace.
	SourceRaw []json.RawMessage `json:"source,omitempty" caddy:"namespace=http.ip_sources inline_key=source"`

	// What happens to a request with a right token from an address that is not allowed: `refuse` answers
	// 403, `pass` lets it go on. Either is logged as WARN, because GREEN-API may have added an address.
	// Default: `refuse`.
	Unlisted string `json:"unlisted,omitempty"`

	// Refuses nothing; what would have been refused is logged and counted.
	ReportOnly bool `json:"report_only,omitempty"`

	allowed  address.Set
	sources  []caddyhttp.IPRangeSource
	logger   *zap.Logger
	sayOnce  sync.Once // logs proxy_not_strict once
	scanners tell.Scanners
}

func (f *IPFilter) provision(ctx caddy.Context) error {
	f.logger = ctx.Logger()
	f.scanners.Log = f.logger
	if f.Off {
		if len(f.Allow)+len(f.SourceRaw) > 0 || f.Unlisted != "" || f.ReportOnly {
			return errors.New("off: takes no other option beside it")
		}
		return nil
	}
	switch f.Unlisted {
	case "":
		f.Unlisted = unlistedRefuse
	case unlistedRefuse, unlistedPass:
	default:
		return fmt.Errorf("unlisted: invalid value %q; want refuse or pass", f.Unlisted)
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && trustsLoosely(server) {
		return errProxyNotStrict
	}
	allow := f.Allow
	if len(allow) == 0 && len(f.SourceRaw) == 0 {
		allow = []string{vendorList}
	}
	list, err := parseAllow(allow)
	if err != nil {
		return err
	}
	f.allowed = address.NewSet(list)
	if f.SourceRaw != nil {
		loaded, err := ctx.LoadModule(f, "SourceRaw")
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		for _, source := range loaded.([]any) {
			f.sources = append(f.sources, source.(caddyhttp.IPRangeSource))
		}
	}
	return nil
}

func (f *IPFilter) cleanup() { f.scanners.Flush() }

// trustsLoosely reports whether server takes the client's address from headers that a client can forge.
// Caddy has already cleared the option itself by the time this runs, so the loaded result is inspected. If
// that cannot be seen, check refuses at run time.
func trustsLoosely(server *caddyhttp.Server) bool {
	if server.TrustedProxiesStrict != 0 {
		return false
	}
	if server.TrustedProxiesUnix || server.TrustedProxiesRaw != nil {
		return true
	}
	proxies := reflect.ValueOf(server).Elem().FieldByName("trustedProxies")
	return proxies.IsValid() && proxies.Kind() == reflect.Interface && !proxies.IsNil()
}

// check refuses an address that is not allowed.
func (f *IPFilter) check(v *visit) *outcome.Verdict {
	if f.Off {
		return nil
	}
	if v.viaProxy && (v.server == nil || v.server.TrustedProxiesStrict == 0) {
		f.sayOnce.Do(func() {
			f.logger.Error("trusted proxies are not strict", zap.Error(errProxyNotStrict))
			tellOperator(outcome.Note{Reason: reason.ProxyNotStrict, Kind: notification.KindNone, Level: zap.ErrorLevel, At: v.Started})
		})
		return f.refuse(v, reason.ProxyNotStrict, zap.DebugLevel)
	}
	if f.allows(v.Client, v.r) {
		return nil
	}
	if v.Token != outcome.TokenRight {
		f.scanners.Add(v.Client)
		if !f.ReportOnly && !f.logger.Core().Enabled(stranger.Level) { // nobody will read more
			return &stranger
		}
		return f.refuse(v, stranger.Reason, stranger.Level)
	}
	end := f.refuse(v, reason.UnlistedSender, zap.WarnLevel)
	if f.Unlisted == unlistedPass {
		v.PassOn(end)
		return nil
	}
	return end
}

// stranger is what scanners are told, one like the other. Nobody changes it.
var stranger = outcome.Verdict{Outcome: outcome.Refused, Reason: reason.IPNotAllowed, Status: http.StatusForbidden, Level: zap.DebugLevel}

// lineToPaste returns the config line that lets in this address beside what is allowed now, and no other.
// It is empty if there is no address to let in.
func (f *IPFilter) lineToPaste(client string) string {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return ""
	}
	allow := slices.Clone(f.Allow)
	if len(allow) == 0 && len(f.SourceRaw) == 0 { // the default, which any allow replaces
		allow = []string{vendorList}
	}
	allow = append(allow, address.Fold(addr).String())
	return "To let it in, say in ip_filter: allow " + strings.Join(allow, " ") + "."
}

// refuse reports the address that was checked, the socket's peer, which differs behind a proxy, and the
// state of the token: all that is needed to tell a scanner from a new address of the vendor.
func (f *IPFilter) refuse(v *visit, why reason.Reason, level zapcore.Level) *outcome.Verdict {
	peer, _, err := net.SplitHostPort(v.r.RemoteAddr)
	if err != nil {
		peer = v.r.RemoteAddr
	}
	return &outcome.Verdict{
		Outcome: outcome.Refused, Reason: why, Status: http.StatusForbidden, Level: level,
		Fields: []zap.Field{
			zap.String("client_ip", outcome.Clip(v.Client)), zap.String("remote_ip", peer), zap.String("token", string(v.Token)),
		},
	}
}

// allows reports whether the address, as Caddy writes it, is in one of the lists.
func (f *IPFilter) allows(one string, r *http.Request) bool {
	addr, err := netip.ParseAddr(one)
	if err != nil {
		return false // not an address, not let in
	}
	addr = address.Fold(addr)
	if f.allowed.Contains(addr) {
		return true
	}
	for _, source := range f.sources {
		if list, ours := source.(interface{ contains(netip.Addr) bool }); ours {
			if list.contains(addr) {
				return true
			}
			continue
		}
		for _, prefix := range source.GetIPRanges(r) {
			if address.FoldPrefix(prefix).Contains(addr) {
				return true
			}
		}
	}
	return false
}

// isOpen reports whether the gate lets in nearly any address.
func (f *IPFilter) isOpen() bool {
	if f.Off || f.ReportOnly {
		return true
	}
	list := slices.Clone([]netip.Prefix(f.allowed))
	for _, source := range f.sources {
		switch source.(type) {
		case *caddyhttp.StaticIPRange, *AddressFile, VendorAddresses: // these need no request
			list = append(list, source.GetIPRanges(nil)...)
		}
	}
	return address.MostOfInternet(list)
}

func parseAllow(allow []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range allow {
		resolved, err := resolve(text)
		if err != nil {
			return nil, fmt.Errorf("allow: %w", err)
		}
		for i, item := range strings.Fields(resolved) {
			prefixes, err := parseItem(item)
			if err != nil && resolved != text { // do not quote a placeholder's value
				return nil, fmt.Errorf("allow: %s: its address %d is invalid; %w", text, i+1, err)
			}
			if err != nil {
				return nil, fmt.Errorf("allow: invalid address %q; %w", item, err)
			}
			list = append(list, prefixes...)
		}
	}
	return list, nil
}

// parseItem parses an address or the name of a list of addresses.
func parseItem(item string) ([]netip.Prefix, error) {
	switch item {
	case vendorList:
		return address.Vendor(), nil
	case "private_ranges":
		return parsePrefixes(caddyhttp.PrivateRangesCIDR()) // one of them is a bare address
	}
	return parsePrefixes([]string{item})
}

func parsePrefixes(texts []string) ([]netip.Prefix, error) {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = address.Parse(text); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// unmarshalCaddyfile sets up the gate from Caddyfile tokens. Syntax:
//
//	ip_filter [off] {
//	    allow    <green_api|private_ranges|addresses...>
//	    source   <module> [<options...>]
//	    unlisted <refuse|pass>
//	    report_only
//	}
func (f *IPFilter) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	var err error
	if f.Off, err = offArg(d); err != nil {
		return err
	}
	return eachOption(d, "ip_filter", []option{
		{name: "allow", parse: func() error { return f.allowArgs(d) }},
		{name: "source", repeats: true, parse: func() error {
			if !d.NextArg() {
				return d.Err("source: want the name of an http.ip_sources module, such as static")
			}
			name := d.Val()
			source, err := caddyfile.UnmarshalModule(d, "http.ip_sources."+name)
			if err != nil {
				return err
			}
			f.SourceRaw = append(f.SourceRaw, caddyconfig.JSONModuleObject(source, "source", name, nil))
			return nil
		}},
		{name: "unlisted", parse: func() error { return choiceArg(d, &f.Unlisted, unlistedRefuse, unlistedPass) }},
		{name: "report_only", parse: func() error { return flagArg(d, &f.ReportOnly) }},
	})
}

// allowArgs stores addresses. An nginx line looks much the same.
func (f *IPFilter) allowArgs(d *caddyfile.Dispenser) error {
	if err := listArgs(d, &f.Allow); err != nil {
		return err
	}
	for _, text := range f.Allow {
		switch bare, ended := strings.CutSuffix(text, ";"); {
		case bare == "all":
			return d.Err("allow: all is nginx's; want 'ip_filter off' to let every address in")
		case ended:
			return d.Errf("allow: '%s' ends in ; as in nginx; want spaces between addresses, and nothing at the end of a line", text)
		}
	}
	return nil
}

// VendorAddresses is the list of addresses that GREEN-API publishes for WhatsApp, for any option that takes
// a source of addresses, such as `trusted_proxies`.
type VendorAddresses struct{}

// CaddyModule returns the Caddy module information.
func (VendorAddresses) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.ip_sources.green_api",
		New: func() caddy.Module { return new(VendorAddresses) },
	}
}

// GetIPRanges returns the list.
func (VendorAddresses) GetIPRanges(*http.Request) []netip.Prefix { return address.Vendor() }

// UnmarshalCaddyfile takes no arguments. Syntax:
//
//	green_api
func (VendorAddresses) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// AddressFile is a list of addresses in a file, one address or CIDR per line, # for a comment. The file is
// followed: a change takes effect within seconds, and if it is unusable, the last good copy stays in
// effect.
type AddressFile struct {
	// The file's path. Placeholders `{env.*}` and `{file.*}` are resolved at load.
	Path string `json:"path"`

	list atomic.Pointer[address.Set]
}

// CaddyModule returns the Caddy module information.
func (*AddressFile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.ip_sources.green_api_file",
		New: func() caddy.Module { return new(AddressFile) },
	}
}

// Provision reads the list for the first time.
func (f *AddressFile) Provision(ctx caddy.Context) error {
	return followFile(ctx, f.Path, "addresses", tellOperator, func(text []byte) (follow.Entries, func(), error) {
		list, err := parseAddresses(text)
		return addressList{list}, func() { f.list.Store(&list) }, err
	})
}

// parseAddresses parses a list of addresses. Its errors name the line and never quote it.
func parseAddresses(text []byte) (address.Set, error) {
	var list []netip.Prefix
	for number, fields := range follow.Lines(text) {
		for _, field := range fields {
			prefix, err := address.Parse(field)
			if err != nil {
				return nil, fmt.Errorf("line %d: no address; want one such as 203.0.113.7 or 203.0.113.0/24 a line", number)
			}
			list = append(list, prefix)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no address in it")
	}
	return address.NewSet(list), nil
}

// addressList holds the addresses that a file lists.
type addressList struct{ address.Set }

// Count returns the number of prefixes in the list.
func (l addressList) Count() int { return len(l.Set) }

// MissingFrom returns how many of them a newer list lacks.
func (l addressList) MissingFrom(newer follow.Entries) int {
	return l.Missing(newer.(addressList).Set)
}

// contains reports whether an address is in the list, without scanning all of it.
func (f *AddressFile) contains(addr netip.Addr) bool { return f.list.Load().Contains(addr) }

// GetIPRanges returns the list.
func (f *AddressFile) GetIPRanges(*http.Request) []netip.Prefix { return *f.list.Load() }

// UnmarshalCaddyfile parses the path. Syntax:
//
//	green_api_file <path>
func (f *AddressFile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	return textArg(d, &f.Path)
}

// Interface guards
var (
	_ caddy.Provisioner       = (*AddressFile)(nil)
	_ caddyhttp.IPRangeSource = (*AddressFile)(nil)
	_ caddyfile.Unmarshaler   = (*AddressFile)(nil)
	_ caddyhttp.IPRangeSource = VendorAddresses{}
	_ caddyfile.Unmarshaler   = VendorAddresses{}
)
