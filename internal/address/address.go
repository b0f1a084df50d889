// Package address holds sets of client addresses, and the addresses that GREEN-API publishes.
package address

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"sort"
	"sync"
)

// VendorDate is when Vendor was last compared with the vendor's page.
const VendorDate = "2026-07-15"

// Vendor returns the addresses that GREEN-API publishes for WhatsApp (GREEN-API docs: "Webhook Endpoint
// technology", section "Our public IP addresses", read on VendorDate). They belong to clouds that others
// use, too, so an address alone proves nothing. The addresses for MAX and Telegram are not known.
var Vendor = sync.OnceValue(func() []netip.Prefix {
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

// A Set is a set of addresses: sorted prefixes, none of which covers another, so that a lookup takes one
// binary search.
type Set []netip.Prefix

// NewSet returns the set of prefixes, which may overlap.
func NewSet(list []netip.Prefix) Set {
	sorted := slices.Clone(list)
	for i, p := range sorted {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits() // the wider one first, because it covers the other
	})
	set := make(Set, 0, len(sorted))
	for _, p := range sorted {
		if len(set) == 0 || !set[len(set)-1].Contains(p.Addr()) {
			set = append(set, p)
		}
	}
	return set
}

// Contains reports whether an address is in the set.
func (set Set) Contains(addr netip.Addr) bool {
	after := sort.Search(len(set), func(i int) bool { return addr.Less(set[i].Addr()) })
	return after > 0 && set[after-1].Contains(addr)
}

// Fold reduces the spellings of an address to one: ::ffff:203.0.113.7 becomes 203.0.113.7, and the zone of
// a link-local address is removed, because it says nothing about the sender.
func Fold(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// FoldPrefix is Fold for prefixes. netip never finds a mapped address in an IPv4 prefix, nor vice versa.
func FoldPrefix(prefix netip.Prefix) netip.Prefix {
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix
}

// globalUnicast contains the IPv6 addresses of the Internet (RFC 4291, 2.4; all that IANA has allocated).
var globalUnicast = netip.MustParsePrefix("2000::/3")

// MostOfInternet reports whether a list covers half of all IPv4 or IPv6 addresses, in however many pieces.
// Such a list shuts out nobody who can choose where to send from.
func MostOfInternet(list []netip.Prefix) bool {
	folded := make([]netip.Prefix, len(list))
	for i, prefix := range list {
		folded[i] = FoldPrefix(prefix)
	}
	var v4, v6 float64 // shares of all addresses
	for _, prefix := range NewSet(folded) {
		switch {
		case prefix.Addr().Is4():
			v4 += math.Ldexp(1, -prefix.Bits())
		case prefix.Overlaps(globalUnicast):
			v6 += math.Ldexp(1, min(0, globalUnicast.Bits()-prefix.Bits()))
		}
	}
	return v4 >= 0.5 || v6 >= 0.5
}

// Missing returns how many prefixes another set lacks. A prefix is present if its first and last address
// are: it may have been split, or be part of a wider one.
func (set Set) Missing(other Set) (n int) {
	for _, p := range set {
		if !other.Contains(p.Addr()) || !other.Contains(Last(p)) {
			n++
		}
	}
	return n
}

// Last returns the last address of a masked prefix.
func Last(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// ErrWant says what Parse accepts.
var ErrWant = errors.New("want an address such as 203.0.113.7, a CIDR such as 203.0.113.0/24 or 2001:db8::/32, private_ranges or green_api")

// Parse parses a CIDR, or an address as a prefix of its full length.
func Parse(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, ErrWant
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	return FoldPrefix(prefix), nil
}
