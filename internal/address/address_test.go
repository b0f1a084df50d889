package address

import (
	"net/netip"
	"strings"
	"testing"
)

// TestMostOfInternet: a list of most addresses keeps nobody out, in however many pieces.
func TestMostOfInternet(t *testing.T) {
	for list, want := range map[string]bool{
		"":                              false,
		"0.0.0.0/0":                     true,
		"::/0":                          true,
		"::ffff:0:0/96":                 true, // the same as 0.0.0.0/0
		"0.0.0.0/1 128.0.0.0/1":         true,
		"0.0.0.0/2 64.0.0.0/2":          true,
		"0.0.0.0/2 0.0.0.0/3":           false, // the same ones twice
		"2000::/3":                      true,
		"2000::/4 3000::/4":             true,
		"2000::/5 3000::/5":             true,
		"2000::/5":                      false,
		"fc00::/7 fe80::/10 ::1/128":    false,
		"10.0.0.0/8 203.0.113.7/32":     false,
		"8000::/1":                      false, // nobody is there
		"128.0.0.0/1 2001:db8::/32":     true,
		"192.0.0.0/2 160.0.0.0/3":       false,
		"1.0.0.0/8 2.0.0.0/7 4.0.0.0/6": false,
	} {
		var prefixes []netip.Prefix
		for text := range strings.FieldsSeq(list) {
			prefixes = append(prefixes, netip.MustParsePrefix(text))
		}
		if got := MostOfInternet(prefixes); got != want {
			t.Errorf("%q: %t, want %t", list, got, want)
		}
	}
}
