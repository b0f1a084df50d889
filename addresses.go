package greenapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func init() {
	caddy.RegisterModule(VendorAddresses{})
	caddy.RegisterModule(new(AddressFile))
}

// vendorList is the word for the vendor's addresses in `allow`.
const vendorList = "green_api"

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

// AddressFile is a list of addresses in a file, one address or CIDR a line, # for a comment. The
// file is followed: a change is in force within seconds, and a file that cannot be used leaves the
// last good copy in force.
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
	return followFile(ctx, f.Path, "addresses", tellOperator, func(text []byte) (entries, func(), error) {
		list, err := parseAddresses(text)
		return addressList{list}, func() { f.list.Store(&list) }, err
	})
}

// parseAddresses reads a list of addresses. Its errors name the line, never what is in it.
func parseAddresses(text []byte) (address.Set, error) {
	var list []netip.Prefix
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		for field := range strings.FieldsSeq(withoutComment(line)) {
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

// tellOperator tells who runs the process, if there is a green_api in its config.
func tellOperator(n outcome.Note) {
	operators.Range(func(_, value any) bool {
		value.(*operator).alerts.tell(n)
		return true
	})
}

// contains reports whether an address is in the list, without a look at each of its lines.
func (f *AddressFile) contains(addr netip.Addr) bool { return f.list.Load().Contains(addr) }

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
