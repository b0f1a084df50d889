package greenapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(VendorAddresses{})
	caddy.RegisterModule(new(AddressFile))
}

// vendorList is the word for the vendor's addresses in `allow`.
const vendorList = "green_api"

// vendorListDate is when the list was last compared with the vendor's page.
const vendorListDate = "2026-07-15"

// vendorAddresses are those that GREEN-API publishes for WhatsApp (GREEN-API docs: "Webhook
// Endpoint technology", section "Our public IP addresses", read on vendorListDate). They belong to
// clouds that others use too, so that an address alone proves nothing. The addresses for MAX and
// Telegram are not known.
var vendorAddresses = sync.OnceValue(func() []netip.Prefix {
	var list []netip.Prefix
	for _, address := range []string{
		"46.101.109.139", "51.250.12.167", "51.250.84.44", "51.250.95.149",
		"64.226.111.11", "89.169.137.216", "104.248.252.93", "158.160.49.84",
		"158.160.139.176", "165.22.93.202", "167.172.162.71", "207.154.255.195",
	} {
		list = append(list, netip.PrefixFrom(netip.MustParseAddr(address), 32))
	}
	return list
})

// VendorAddresses is the list of addresses that GREEN-API publishes for WhatsApp, for every option
// that takes a source of addresses, as `trusted_proxies`.
type VendorAddresses struct{}

// CaddyModule returns the Caddy module information.
func (VendorAddresses) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.ip_sources.green_api",
		New: func() caddy.Module { return new(VendorAddresses) },
	}
}

// GetIPRanges returns the list.
func (VendorAddresses) GetIPRanges(*http.Request) []netip.Prefix { return vendorAddresses() }

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

// prefixes is a set of addresses: prefixes of which none covers another, sorted, so that a look-up
// takes one binary search.
type prefixes []netip.Prefix

func newPrefixes(list []netip.Prefix) prefixes {
	sorted := slices.Clone(list)
	for i, p := range sorted {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits() // the wider one first, it covers the other
	})
	set := make(prefixes, 0, len(sorted))
	for _, p := range sorted {
		if len(set) == 0 || !set[len(set)-1].Contains(p.Addr()) {
			set = append(set, p)
		}
	}
	return set
}

func (set prefixes) contains(addr netip.Addr) bool {
	after := sort.Search(len(set), func(i int) bool { return addr.Less(set[i].Addr()) })
	return after > 0 && set[after-1].Contains(addr)
}

// foldAddr makes one address of its spellings: ::ffff:203.0.113.7 is 203.0.113.7, and the zone of
// a link-local address says nothing about who sends.
func foldAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// foldPrefix does to a prefix what foldAddr does to addresses. netip never finds a mapped address
// in an IPv4 prefix, nor the other way about.
func foldPrefix(prefix netip.Prefix) netip.Prefix {
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix
}

// AddressFile is a list of addresses in a file, one address or CIDR a line, # for a comment. The
// file is followed: a change is in force within seconds, and a file that cannot be used leaves the
// last good copy in force.
type AddressFile struct {
	// The file's path. Placeholders `{env.*}` and `{file.*}` are resolved at load.
	Path string `json:"path"`

	list atomic.Pointer[prefixes]
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
	return followFile(ctx, f.Path, "addresses", tellOperator, func(text []byte) (entries, func(), error) {
		list, err := parseAddresses(text)
		return list, func() { f.list.Store(&list) }, err
	})
}

// parseAddresses reads a list of addresses. Its errors name the line, never what is in it.
func parseAddresses(text []byte) (prefixes, error) {
	var list []netip.Prefix
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		for field := range strings.FieldsSeq(withoutComment(line)) {
			prefix, err := parsePrefix(field)
			if err != nil {
				return nil, fmt.Errorf("line %d: no address; want one such as 203.0.113.7 or 203.0.113.0/24 a line", number)
			}
			list = append(list, prefix)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no address in it")
	}
	return newPrefixes(list), nil
}

// tellOperator tells who runs the process, if there is a green_api in its config.
func tellOperator(n note) {
	operators.Range(func(_, value any) bool {
		value.(*operator).alerts.tell(n)
		return true
	})
}

// contains reports whether an address is in the list, without a look at each of its lines.
func (f *AddressFile) contains(addr netip.Addr) bool { return f.list.Load().contains(addr) }

// GetIPRanges returns the list.
func (f *AddressFile) GetIPRanges(*http.Request) []netip.Prefix { return *f.list.Load() }

// UnmarshalCaddyfile takes the path. Syntax:
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
