package greenapi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

func newFilter(t testing.TB, allow ...string) *IPFilter {
	t.Helper()
	f := &IPFilter{Allow: allow}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := f.provision(ctx); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestIPFilterAllows(t *testing.T) {
	for _, test := range []struct {
		allow   string // separated by spaces
		address string
		want    bool
	}{
		{"", "46.101.109.139", true},
		{"", "207.154.255.195", true},
		{"", "::ffff:51.250.84.44", true},
		{"", "127.0.0.1", false},
		{"", "46.101.109.138", false},
		{"green_api", "51.250.84.44", true},
		{"203.0.113.7", "51.250.84.44", false}, // only what is listed
		{"203.0.113.7 green_api", "51.250.84.44", true},
		{"203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7", "203.0.113.8", false},
		{"203.0.113.7", "::ffff:203.0.113.7", true},
		{"203.0.113.7", "::ffff:cb00:7107", true},
		{"203.0.113.7", "::203.0.113.7", false},           // deprecated form, another address
		{"203.0.113.7", "64:ff9b::203.0.113.7", false},    // NAT64, another address
		{"::ffff:203.0.113.7", "203.0.113.7", true},       // spelled so in the config
		{"::ffff:203.0.113.0/120", "203.0.113.200", true}, //
		{"::ffff:203.0.113.0/120", "203.0.114.0", false},
		{"203.0.113.0/24", "203.0.113.255", true},
		{"203.0.113.0/24", "203.0.114.0", false},
		{"203.0.113.9/24", "203.0.113.1", true}, // host bits do not count
		{"0.0.0.0/0", "198.51.100.1", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "198.51.100.1", false},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"fe80::/10", "fe80::1%eth0", true},
		{"fe80::1", "fe80::1%eth0", true},
		{"private_ranges", "10.1.2.3", true},
		{"private_ranges", "::1", true},
		{"private_ranges", "11.1.2.3", false},
		{"10.0.0.0/8 10.0.0.1", "10.200.0.1", true}, // one covers the other
		{"10.0.0.1 10.0.0.0/8", "10.0.0.2", true},
		{"10.0.0.0/24 10.0.2.0/24", "10.0.1.1", false},
		{"203.0.113.7", "", false},
		{"203.0.113.7", "@", false},
		{"203.0.113.7", "203.0.113.07", false},
		{"203.0.113.7", "203.0.113.7:80", false},
		{"203.0.113.7", " 203.0.113.7", false},
		{"0.0.0.0/0 ::/0", "garbage", false},
	} {
		f := newFilter(t, strings.Fields(test.allow)...)
		if got := f.allows(test.address, nil); got != test.want {
			t.Errorf("allow %q: %q is allowed: %t, want %t", test.allow, test.address, got, test.want)
		}
	}
}

// FuzzClientAddress holds the search in sorted prefixes against a plain walk through all of them.
func FuzzClientAddress(f *testing.F) {
	list := []string{"10.0.0.0/8", "10.1.0.0/16", "203.0.113.7/32", "2001:db8::/32", "2001:db8:1::/48", "::1/128", "192.0.2.128/25"}
	filter := newFilter(f, list...)
	for _, seed := range []string{
		"10.1.2.3", "::ffff:10.1.2.3", "203.0.113.7", "2001:db8:1::5", "fe80::1%eth0", "", "@", "1.2.3", "0x7f.1", "192.0.2.127",
		"::ffff:0:10.1.2.3", "2001:DB8::1", "10.0.0.1%x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		want := false
		if ip := net.ParseIP(strings.SplitN(address, "%", 2)[0]); ip != nil {
			for _, cidr := range list {
				_, network, err := net.ParseCIDR(cidr)
				if err != nil {
					t.Fatal(err)
				}
				want = want || network.Contains(ip)
			}
		}
		if _, err := netip.ParseAddr(address); err != nil {
			want = false // it is stricter, as about zones of IPv4 addresses
		}
		if got := filter.allows(address, nil); got != want {
			t.Errorf("%q is allowed: %t, want %t", address, got, want)
		}
	})
}

// manyPrefixes are n prefixes of all lengths, and addresses, half of them in one.
func manyPrefixes(n int) (list []string, addresses []string) {
	random := rand.New(rand.NewPCG(1, 2))
	for range n {
		a, b, c := random.IntN(200)+1, random.IntN(256), random.IntN(256)
		list = append(list, fmt.Sprintf("%d.%d.%d.0/%d", a, b, c, 24+random.IntN(9)))
		addresses = append(addresses, fmt.Sprintf("%d.%d.%d.0", a, b, c), fmt.Sprintf("201.%d.%d.1", b, c))
	}
	return list, addresses
}

func TestIPFilterManyPrefixes(t *testing.T) {
	list, addresses := manyPrefixes(10_000)
	f := newFilter(t, list...)
	for i, address := range addresses {
		if got := f.allows(address, nil); got != (i%2 == 0) {
			t.Fatalf("%s is allowed: %t", address, got)
		}
	}
	if allocations := testing.AllocsPerRun(100, func() { f.allows(addresses[0], nil) }); allocations != 0 {
		t.Errorf("%v allocations a look-up", allocations)
	}
}

func BenchmarkIPFilter(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			list, addresses := manyPrefixes(n)
			f := newFilter(b, list...)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f.allows(addresses[i%len(addresses)], nil)
			}
		})
	}
}

// TestIPFilterRecords: the record of a refusal has what tells a scanner from a new address of the
// vendor's.
func TestIPFilterRecords(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	block := func(ipFilter string) string {
		return edgetest.Site("ip_filter {\n" + ipFilter + "\n}\nauth {\ntoken TOKEN\n}\nreverse_proxy " + up.Address)
	}
	strict := "servers {\ntrusted_proxies static 127.0.0.0/8\ntrusted_proxies_strict\n}\n"
	for _, test := range []struct {
		name    string
		config  string
		headers []string
		status  int
		want    []string
	}{
		{"scanner", block("allow 203.0.113.7"), []string{"Authorization", ""}, 403, []string{"reason", "ip_not_allowed", "level", "debug", "client_ip", "127.0.0.1", "remote_ip", "127.0.0.1", "token", "none"}},
		{"scanner with a token", block("allow 203.0.113.7"), []string{"Authorization", "Bearer x"}, 403, []string{"reason", "ip_not_allowed", "level", "debug", "token", "wrong"}},
		{"the vendor's new address", block("allow 203.0.113.7"), nil, 403, []string{"reason", "unlisted_sender", "level", "warn", "client_ip", "127.0.0.1", "token", "right"}},
		{"unlisted pass", block("allow 203.0.113.7\nunlisted pass"), nil, 200, []string{"outcome", "delivered", "reason", "unlisted_sender", "level", "warn", "client_ip", "127.0.0.1", "token", "right"}},
		{"unlisted pass, wrong token", block("allow 203.0.113.7\nunlisted pass"), []string{"Authorization", "Bearer x"}, 403, []string{"reason", "ip_not_allowed"}},
		{"a header from a stranger", block("allow 203.0.113.7"), []string{"X-Forwarded-For", "203.0.113.7"}, 403, []string{"client_ip", "127.0.0.1"}},
		{"behind a proxy", edgetest.Global(strict, block("allow 203.0.113.7")), []string{"X-Forwarded-For", "203.0.113.7"}, 200, []string{"outcome", "delivered", "reason", ""}},
		{"behind a proxy, mapped", edgetest.Global(strict, block("allow 203.0.113.7")), []string{"X-Forwarded-For", "::ffff:203.0.113.7"}, 200, []string{"outcome", "delivered"}},
		{"behind a proxy, forged", edgetest.Global(strict, block("allow 203.0.113.7")), []string{"X-Forwarded-For", "203.0.113.7, 198.51.100.9"}, 403, []string{"reason", "unlisted_sender", "client_ip", "198.51.100.9", "remote_ip", "127.0.0.1"}},
		{"source static", block("source static 127.0.0.0/8"), nil, 200, []string{"outcome", "delivered"}},
		{"source static, mapped", edgetest.Global(strict, block("source static ::ffff:203.0.113.0/120")), []string{"X-Forwarded-For", "203.0.113.9"}, 200, []string{"outcome", "delivered"}},
		{"source only", edgetest.Global(strict, block("source static 198.51.100.0/24")), []string{"X-Forwarded-For", "51.250.84.44"}, 403, []string{"client_ip", "51.250.84.44"}},
		{"source green_api", edgetest.Global(strict, block("source green_api")), []string{"X-Forwarded-For", "51.250.84.44"}, 200, []string{"outcome", "delivered"}},
		{"the default", edgetest.Global(strict, edgetest.Site("auth {\ntoken TOKEN\n}\nreverse_proxy "+up.Address)), []string{"X-Forwarded-For", "51.250.84.44"}, 200, []string{"outcome", "delivered"}},
		{"the default, a stranger", edgetest.Global(strict, edgetest.Site("auth {\ntoken TOKEN\n}\nreverse_proxy "+up.Address)), nil, 403, []string{"reason", "unlisted_sender"}},
		{"off", edgetest.Site("ip_filter off\nauth {\ntoken TOKEN\n}\nreverse_proxy " + up.Address), nil, 200, []string{"outcome", "delivered"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, test.config)
			response := e.Send(http.MethodPost, e.URL, strings.NewReader(edgetest.TextMessage), test.headers...)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if test.status == 403 && response.Close != true {
				t.Error("connection is left open although the body was not read")
			}
			e.WantRecord(test.want...)
		})
	}
}

// TestIPFilterScanners: strangers do not flood the log, and are not forgotten.
func TestIPFilterScanners(t *testing.T) {
	e := edgetest.Start(t, strings.Replace(edgetest.Site("ip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken TOKEN\n}"), "level DEBUG", "level INFO", 1))
	for range 30 {
		if status := e.Post(edgetest.TextMessage, "Authorization", ""); status != 403 {
			t.Fatalf("status %d", status)
		}
	}
	if records := e.Logs.Records(t); len(records) != 0 {
		t.Fatalf("logged: %v", records)
	}
	if err := caddy.Stop(); err != nil { // as a minute would
		t.Fatal(err)
	}
	e.WantRecord("level", "info", "count", "30", "reason", "ip_not_allowed", "last_client_ip", "127.0.0.1")
}

// TestIPFilterNoAddress: a peer of a unix socket has no address.
func TestIPFilterNoAddress(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	socket := filepath.Join(os.TempDir(), "green-api-test-"+edgetest.FreePort(t)+".sock")
	defer os.Remove(socket)
	e := edgetest.Start(t, strings.Replace(edgetest.Site("ip_filter {\nallow 0.0.0.0/0 ::/0\n}\nauth {\ntoken TOKEN\n}\nreverse_proxy "+up.Address),
		"bind 127.0.0.1", "bind unix/"+socket, 1))
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	r, err := http.NewRequest(http.MethodPost, "http://localhost/green-api/webhook", strings.NewReader(edgetest.TextMessage))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 403 {
		t.Errorf("status %d, want 403", response.StatusCode)
	}
	e.WantRecord("reason", "unlisted_sender", "client_ip", "", "token", "right")
}

// TestAddressesLost: an address is lost only if the newer list has it in no prefix.
func TestAddressesLost(t *testing.T) {
	parse := func(text string) address.Set {
		list, err := parseAddresses([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, test := range []struct {
		before, after string
		want          int
	}{
		{"203.0.113.7", "203.0.113.7", 0},
		{"203.0.113.7", "203.0.113.8", 1},
		{"203.0.113.1\n203.0.113.2\n203.0.113.3", "203.0.113.0/24", 0},
		{"203.0.113.0/24", "203.0.113.0/25 203.0.113.128/25", 0},
		{"203.0.113.0/24", "203.0.113.0/25", 1},
		{"2001:db8::/33 ::1", "2001:db8::/32", 1},
		{"0.0.0.0/0", "::/0", 1},
	} {
		if got := parse(test.before).Missing(parse(test.after)); got != test.want {
			t.Errorf("%q to %q: %d lost, want %d", test.before, test.after, got, test.want)
		}
	}
	if last := address.Last(netip.MustParsePrefix("2001:db8::/31")); last.String() != "2001:db9:ffff:ffff:ffff:ffff:ffff:ffff" {
		t.Error(last)
	}
	if list := (addressList{parse("203.0.113.7 10.0.0.1")}); list.Count() != 2 || list.MissingFrom(addressList{parse("10.0.0.0/8")}) != 1 {
		t.Error("a list of addresses counts wrongly")
	}
}

func addressesOf(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	return text.String()
}

// TestLongAddressFile: a stranger's request costs no look at each line of a long list.
func TestLongAddressFile(t *testing.T) {
	list, err := parseAddresses([]byte(addressesOf(500_000)))
	if err != nil {
		t.Fatal(err)
	}
	file := new(AddressFile)
	file.list.Store(&list)
	f := &IPFilter{}
	f.sources = append(f.sources, file)
	began := time.Now()
	for range 1000 { // 5 s, line by line
		if f.allows("203.0.113.9", nil) || !f.allows("10.0.0.1", nil) || !f.allows("::ffff:10.7.161.31", nil) {
			t.Fatal("found wrongly")
		}
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("3000 look-ups took %s", took)
	}
}
