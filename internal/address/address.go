// Package address holds sets of client addresses, and those that GREEN-API publishes.
package address

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"sort"
	"sync"
)

// VendorDate is when the list of Vendor was last compared with the vendor's page.
const VendorDate = "2026-07-15"

// Vendor returns the addresses that GREEN-API publishes for WhatsApp (GREEN-API docs: "Webhook
// Endpoint technology", section "Our public IP addresses", read on VendorDate). They belong to clouds that
// others use too, so an address alone proves nothing. The addresses for MAX and Telegram are not known.
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

// A Set is a set of addresses: prefixes of which none covers another, sorted, so that a look-up
// takes one binary search.
type Set []netip.Prefix

// NewSet makes a set of prefixes, which may overlap.
func NewSet(list []netip.Prefix) Set {
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

// Fold makes one address of its spellings: ::ffff:203.0.113.7 is 203.0.113.7, and the zone of
// a link-local address says nothing about who sends.
func Fold(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// FoldPrefix does to a prefix what Fold does to addresses. netip never finds a mapped address
// in an IPv4 prefix, nor the other way about.
func FoldPrefix(prefix netip.Prefix) netip.Prefix {
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix
}

// globalUnicast is where the IPv6 addresses of the Internet are (RFC 4291, 2.4; all that IANA has
// given out).
var globalUnicast = netip.MustParsePrefix("2000::/3")

// MostOfInternet reports whether a list has half of the addresses of IPv4 or of IPv6, in however
// many pieces. Such a list keeps nobody out who can choose where to send from.
func MostOfInternet(list []netip.Prefix) bool {
	folded := make([]netip.Prefix, len(list))
	for i, prefix := range list {
		folded[i] = FoldPrefix(prefix)
	}
	var v4, v6 float64 // the shares of all
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

// Missing counts the prefixes that another set lacks. One is there if its first and its last address are:
// it may have been divided, or be a part of a wider one.
func (set Set) Missing(other Set) (n int) {
	for _, p := range set {
		if !other.Contains(p.Addr()) || !other.Contains(Last(p)) {
			n++
		}
	}
	return n
}

// Last is the last address of a masked prefix.
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

// Parse reads an address, as a prefix of its whole length, or a CIDR.
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
