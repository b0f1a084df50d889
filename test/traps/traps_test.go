package traps

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// The traps that servers of this kind have fallen into, and the test that falls into each of them
// if our defence is taken away:
//
//	trap                                      test
//	forged X-Forwarded-For, appending proxy   TestTrapAddresses, TestIPFilterRecords; TestProvisionRefuses (not strict)
//	other headers with an address in them     TestTrapAddresses
//	::ffff: in the request, in the config     TestTrapAddresses, TestIPFilterAllows
//	zones, leading zeros, odd spellings       TestTrapAddresses, TestIPFilterAllows
//	peers of unix sockets, no address         TestIPFilterNoAddress
//	TLS early data                            TestTrapEarlyDataQUIC, TestTrapEarlyData, TestEarlyData
//	tokens: doubled, empty, odd               TestTrapTokens, TestAuthJudge
//	an instance's leading zeros               TestAuthCheckInstance
//	names twice, by escape, in another case   TestTrapBodies, TestTrapForeignInstance
//	nesting, spaces, long and huge numbers    TestTrapBodies, TestParseBounds
//	values, names, faults without end         TestCost, TestCostAtOnce, TestAskedTooMuch
//	what is no JSON                           TestTrapJSON
//	gzip, other encodings                     TestTrapBodies
//	doubled Content-Type, forms, charsets     TestTrapBodies
//	chunked over the limit                    TestTrapFraming
//	wrong Content-Length, smuggled requests   TestTrapFraming, TestAborted
//	Expect: 100-continue                      TestDeliverExpect, TestAuthRefusesAtOnce
//	a refusal that waits for the body         TestTrapAtOnce, TestAuthRefusesAtOnce
//	slow headers, slow bodies                 TestTrapSlow; TestTrapExampleTimeouts
//	injection into logs and alerts            TestTrapInjection
//	placeholders and header lines in a body   TestTrapPlaceholders
//	a stranger on a shared connection         TestTrapSharedConnection
//	an answer 200 that nobody has given       TestNoUnexplained200, TestEmpty200
//	fails open when a file is missing         TestProvisionRefuses
//	a header that marks a replay              TestTrapReplayHeader
//	tokens in logs, alerts, answers           TestSecrets
//	a quarantine filled for others            TestShares, TestEntryClipped
//	a replay of what the gates would keep     TestRecheck, TestReplayNamed
//	deleted bodies that stay in the file      TestWipeStaysDue, TestMaxAge, TestQuarantineCommands
//	paths past a login, in odd spellings      TestNobodyWithoutSession, TestReadOnly
//	a stranger's name for this machine        TestHosts
//	a page of another origin                  TestOrigins
//	guessed tokens, planted sessions          TestGuessing, TestFixation, TestLoginOnce

// TestTable: each test that the table names exists.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("traps_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "//\ttrap ")
	table, _, _ = strings.Cut(table, "\n\n")
	named := regexp.MustCompile(`\bTest\w+`).FindAllString(table, -1)
	tests := make(map[string]bool)
	err = filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			tests[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range named {
		if !tests[name] {
			t.Errorf("there is no %s", name)
		}
	}
	if len(named) < 30 {
		t.Errorf("the table names %d tests", len(named))
	}
}

// trapEdge is an edge behind a strict proxy, which is this machine, and a witness behind it.
func trapEdge(t *testing.T, block string) (*edgetest.Edge, *edgetest.Witness) {
	t.Helper()
	up := edgetest.NewWitness(t)
	strict := "servers {\ntrusted_proxies static 127.0.0.0/8\ntrusted_proxies_strict\n}\n"
	return edgetest.Start(t, edgetest.Global(strict, edgetest.Site(block+"\nreverse_proxy "+up.Address))), up
}

func TestTrapAddresses(t *testing.T) {
	e, up := trapEdge(t, "ip_filter {\nallow 203.0.113.7 ::ffff:198.51.100.0/120 2001:db8::/32 fe80::1\n}\nauth {\ntoken TOKEN\n}")
	for _, test := range []struct {
		name    string
		lines   []string
		allowed bool
	}{
		{"allowed", []string{"X-Forwarded-For: 203.0.113.7"}, true},
		{"another", []string{"X-Forwarded-For: 203.0.113.8"}, false},
		{"forged, the proxy appends", []string{"X-Forwarded-For: 203.0.113.7, 192.0.2.9"}, false},
		{"forged, in a line of its own", []string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 192.0.2.9"}, false},
		{"forged, the proxy appends an IPv6 address", []string{"X-Forwarded-For: 203.0.113.7, 2001:db9::9"}, false},
		{"forged, without a proxy", []string{"X-Forwarded-For: 203.0.113.7, 127.0.0.1, 192.0.2.9"}, false},
		{"appended after a forgery", []string{"X-Forwarded-For: 192.0.2.9, 203.0.113.7"}, true},
		{"mapped", []string{"X-Forwarded-For: ::ffff:203.0.113.7"}, true},
		{"mapped, in hexadecimal", []string{"X-Forwarded-For: ::ffff:cb00:7107"}, true},
		{"mapped, another", []string{"X-Forwarded-For: ::ffff:203.0.113.8"}, false},
		{"mapped in the config", []string{"X-Forwarded-For: 198.51.100.9"}, true},
		{"mapped in both", []string{"X-Forwarded-For: ::ffff:198.51.100.9"}, true},
		{"mapped in the config, another", []string{"X-Forwarded-For: 198.51.101.9"}, false},
		{"NAT64", []string{"X-Forwarded-For: 64:ff9b::203.0.113.7"}, false},
		{"zone", []string{"X-Forwarded-For: fe80::1%eth0"}, true},
		{"zone that is an address", []string{"X-Forwarded-For: fe80::2%203.0.113.7"}, false},
		{"leading zeros", []string{"X-Forwarded-For: 203.0.113.07"}, false},
		{"leading zeros, octal", []string{"X-Forwarded-For: 0313.0.0161.07"}, false},
		{"hexadecimal", []string{"X-Forwarded-For: 0xcb007107"}, false},
		{"a number", []string{"X-Forwarded-For: 3405803783"}, false},
		{"a dot at the end", []string{"X-Forwarded-For: 203.0.113.7."}, false},
		{"quoted", []string{`X-Forwarded-For: "203.0.113.7"`}, false},
		{"other digits", []string{"X-Forwarded-For: ２０３.0.113.7"}, false},
		{"with a NUL by percent", []string{"X-Forwarded-For: 203.0.113.7%00"}, true}, // a zone, which does not count
		{"empty", []string{"X-Forwarded-For:"}, false},
		{"none", nil, false},
		{"X-Real-IP", []string{"X-Real-IP: 203.0.113.7"}, false},
		{"Forwarded", []string{"Forwarded: for=203.0.113.7"}, false},
		{"True-Client-IP", []string{"True-Client-IP: 203.0.113.7", "CF-Connecting-IP: 203.0.113.7", "X-Client-IP: 203.0.113.7"}, false},
		{"an underscore", []string{"X_Forwarded_For: 203.0.113.7"}, false},
		{"taken away by Connection", []string{"X-Forwarded-For: 192.0.2.9", "Connection: X-Forwarded-For"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			status, why := 200, ""
			if !test.allowed {
				status, why = 403, reason.UnlistedSender
			}
			e.Trap(up, edgetest.Request(edgetest.TextMessage, test.lines...), status, why)
		})
	}
}

// earlyData is a handler that makes a request one of TLS early data.
type earlyData struct{}

func init() {
	caddy.RegisterModule(earlyData{})
	httpcaddyfile.RegisterHandlerDirective("test_early_data", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return earlyData{}, nil
	})
}

func (earlyData) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_early_data", New: func() caddy.Module { return new(earlyData) }}
}

func (earlyData) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.TLS = new(tls.ConnectionState)
	return next.ServeHTTP(w, r)
}

func (earlyData) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

// TestTrapEarlyData: early data is refused before anything else is looked at.
func TestTrapEarlyData(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.SiteWith("", "route {\ntest_early_data\ngreen_api {\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\n}\n"))
	e.Trap(up, edgetest.Request(edgetest.TextMessage), 425, reason.EarlyData)
	e.Trap(up, strings.Replace(edgetest.Request(edgetest.TextMessage), edgetest.Token, "wrong", 1), 425, reason.EarlyData)
}

func TestTrapTokens(t *testing.T) {
	const basic = "Basic ZGVtbzpkZW1v"
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site("ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN \""+basic+"\"\n}\nreverse_proxy "+up.Address))
	right := "Authorization: Bearer " + edgetest.Token
	for _, test := range []struct {
		name  string
		lines []string
		// With a status of 400, Go's server has refused it.
		status int
		reason string
	}{
		{"Bearer", []string{right}, 200, ""},
		{"Basic", []string{"Authorization: " + basic}, 200, ""},
		{"in another case", []string{"aUTHORIZATION: bEARER " + edgetest.Token}, 200, ""},
		{"none", nil, 401, reason.NoToken},
		{"empty", []string{"Authorization:"}, 401, reason.NoToken},
		{"of spaces", []string{"Authorization:    "}, 401, reason.NoToken},
		{"scheme only", []string{"Authorization: Bearer"}, 401, reason.BadToken},
		{"Basic, scheme only", []string{"Authorization: Basic "}, 401, reason.BadToken},
		{"doubled", []string{right, right}, 401, reason.BadToken},
		{"doubled, Basic", []string{"Authorization: " + basic, "Authorization: " + basic}, 401, reason.BadToken},
		{"doubled, right and wrong", []string{right, "Authorization: Bearer x"}, 401, reason.BadToken},
		{"doubled, wrong and right", []string{"Authorization: Bearer x", right}, 401, reason.BadToken},
		{"doubled, both forms", []string{right, "Authorization: " + basic}, 401, reason.BadToken},
		{"doubled, right and empty", []string{right, "Authorization:"}, 401, reason.BadToken},
		{"doubled, empty both", []string{"Authorization:", "Authorization:"}, 401, reason.BadToken},
		{"doubled by a comma", []string{right + ", Bearer " + edgetest.Token}, 401, reason.BadToken},
		{"doubled scheme", []string{"Authorization: Bearer Bearer " + edgetest.Token}, 401, reason.BadToken},
		{"a word more", []string{right + " x"}, 401, reason.BadToken},
		{"a space in it", []string{"Authorization: Bearer s3cret -canary-token"}, 401, reason.BadToken},
		{"a tab for a space", []string{"Authorization: Bearer\t" + edgetest.Token}, 401, reason.BadToken},
		{"non-breaking space", []string{"Authorization: Bearer\u00a0" + edgetest.Token}, 401, reason.BadToken},
		{"not ASCII", []string{"Authorization: Bearer s3crеt-canary-token"}, 401, reason.BadToken},
		{"broken UTF-8", []string{right + "\xff"}, 401, reason.BadToken},
		{"NUL", []string{right + "\x00"}, 400, ""},
		{"folded", []string{right, " x"}, 401, reason.BadToken},
		{"a space before the colon", []string{"Authorization : Bearer " + edgetest.Token}, 400, ""},
		{"very long", []string{right + strings.Repeat("x", 8<<10)}, 401, reason.BadToken},
		{"longer than a header may be", []string{right + strings.Repeat("x", 2<<20)}, 431, ""},
		{"prefix", []string{right[:len(right)-1]}, 401, reason.BadToken},
		{"in another case itself", []string{strings.ToUpper(right)}, 401, reason.BadToken},
		{"wrong scheme", []string{"Authorization: Basic " + edgetest.Token}, 401, reason.BadToken},
		{"wrong scheme, Basic", []string{"Authorization: Bearer ZGVtbzpkZW1v"}, 401, reason.BadToken},
		{"unknown scheme", []string{"Authorization: Digest " + edgetest.Token}, 401, reason.BadToken},
		{"another header", []string{"Proxy-Authorization: Bearer " + edgetest.Token, "X-Authorization: Bearer " + edgetest.Token}, 401, reason.NoToken},
		{"an underscore", []string{"Authorization_: Bearer " + edgetest.Token}, 401, reason.NoToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			lines := append(test.lines, fmt.Sprintf("Content-Length: %d", len(edgetest.TextMessage)))
			text := "POST /green-api/webhook?token=" + edgetest.Token + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + edgetest.TextMessage
			before := up.Seen()
			if test.status == 431 {
				// The server does not read to the end, and the answer may be lost with the connection.
				conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				go io.WriteString(conn, text)
				if answer, _ := io.ReadAll(conn); strings.Contains(string(answer), " 200 ") {
					t.Errorf("answered %q", answer)
				}
			} else {
				e.Trap(up, text, test.status, test.reason)
			}
			if saw := up.Seen() > before; saw != (test.status == 200) {
				t.Errorf("a handler saw something: %t", saw)
			}
		})
	}
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var buffer bytes.Buffer
	zip := gzip.NewWriter(&buffer)
	if _, err := io.WriteString(zip, text); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.String()
}

// TestTrapBodies has bodies that parsers read differently, or not in a lifetime. All are kept, and
// answered 200, for a re-send would not help.
func TestTrapBodies(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	with := func(name, value string) string {
		return strings.TrimSuffix(edgetest.TextMessage, "}") + `,"` + name + `":` + value + "}"
	}
	inside := func(old, new string) string {
		if !strings.Contains(edgetest.TextMessage, old) { //nolint:gocritic // in this order
			t.Fatalf("nothing to replace: %s", old)
		}
		return strings.Replace(edgetest.TextMessage, old, new, 1)
	}
	json := "Content-Type: application/json"
	for _, test := range []struct {
		name   string
		body   string
		lines  []string
		reason string // "" is delivered
		cause  string
	}{
		{"genuine", edgetest.TextMessage, []string{json}, "", ""},
		{"type twice", with("typeWebhook", `"deviceInfo"`), nil, reason.Malformed, "name twice in one object"},
		{"type twice, the same", with("typeWebhook", `"incomingMessageReceived"`), nil, reason.Malformed, "name twice in one object"},
		{"type twice, by escape", with(`\u0074ypeWebhook`, `"deviceInfo"`), nil, reason.Malformed, "name twice in one object"},
		{"instance twice", inside(`"idInstance":`, `"idInstance":1,"idInstance":`), nil, reason.Malformed, "name twice in one object"},
		{"deep, twice", inside(`"textMessage":"a canary sings"`, `"textMessage":"a","textMessage":"b"`), nil, reason.Malformed, "name twice in one object"},
		{"type in another case", with("TypeWebhook", `"deviceInfo"`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"type in another case, by escape", with(`\u0054YPEwebhook`, `"deviceInfo"`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"type with a Kelvin sign", with("typeWebhoo\u212a", `"deviceInfo"`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"instanceData in another case", with("INSTANCEDATA", `{"idInstance":2}`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"instance in another case", inside(`"wid":`, `"IdInstance":2,"wid":`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"messageData in another case", with("messagedata", `{}`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"message type in another case", inside(`"typeMessage":`, `"TypeMessage":"x","typeMessage":`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"instance with a NUL", inside(`"wid":`, `"idInstance\u0000":2,"wid":`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"type with a NUL and more", with(`typeWebhook\u0000x`, `"deviceInfo"`), nil, reason.Malformed, "name twice but for upper case or a NUL"},
		{"other names in another case", with("Brand", "1}")[:len(with("Brand", "1}"))-2] + `,"brand":2}`, nil, "", ""},
		{"nested 200,000 deep", with("x", strings.Repeat("[", 200_000)+strings.Repeat("]", 200_000)), nil, reason.Malformed, "nested deeper than 100"},
		{"objects nested 100,000 deep", with("x", strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_000)), nil, reason.Malformed, "nested deeper than 100"},
		{"1 MiB of spaces", strings.Repeat(" ", 1<<20), nil, reason.Malformed, "empty body"},
		{"a number of 100,000 digits", with("x", strings.Repeat("9", 100_000)), nil, reason.Malformed, "number longer than 64 bytes"},
		{"a timestamp of 100,000 digits", inside("1700000000", strings.Repeat("9", 100_000)), nil, reason.Malformed, "number longer than 64 bytes"},
		{"1e999999", with("x", "1e999999"), nil, reason.Malformed, "number out of range"},
		{"timestamp 1e999999", inside("1700000000", "1e999999"), nil, reason.Malformed, "number out of range"},
		{"1e-999999999", with("x", "1e-999999999"), nil, reason.Malformed, "number out of range"},
		{"data after the object", edgetest.TextMessage + edgetest.TextMessage, nil, reason.Malformed, "data after the object"},
		{"NUL after the object", edgetest.TextMessage + "\x00", nil, reason.Malformed, "data after the object"},
		{"byte-order mark", "\xef\xbb\xbf" + edgetest.TextMessage, nil, reason.Malformed, "byte-order mark"},
		{"gzip", zipped(t, edgetest.TextMessage), []string{json, "Content-Encoding: gzip"}, reason.Encoding, ""},
		{"gzip, and a body in the clear", edgetest.TextMessage, []string{json, "Content-Encoding: gzip"}, reason.Encoding, ""},
		{"gzip, not said", zipped(t, edgetest.TextMessage), []string{json}, reason.Malformed, "not a JSON object"},
		{"gzip after identity", edgetest.TextMessage, []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, reason.Encoding, ""},
		{"gzip after identity, by a comma", edgetest.TextMessage, []string{"Content-Encoding: identity, gzip"}, reason.Encoding, ""},
		{"encoding empty", edgetest.TextMessage, []string{"Content-Encoding:"}, reason.Encoding, ""},
		{"a bomb", zipped(t, strings.Repeat(" ", 16<<20)), []string{"Content-Encoding: gzip"}, reason.Encoding, ""},
		{"Content-Type doubled", edgetest.TextMessage, []string{json, "Content-Type: text/plain"}, reason.Encoding, ""},
		{"Content-Type doubled, the same", edgetest.TextMessage, []string{json, json}, reason.Encoding, ""},
		{"JSON in UTF-7", inside(`"a canary sings"`, `"+ACI-,+ACI-idInstance+ACI-:2,+ACI-"`), []string{json + "; charset=utf-7"}, reason.Encoding, ""},
		{"JSON in UTF-16", edgetest.TextMessage, []string{json + `;charset="UTF-16LE"`}, reason.Encoding, ""},
		{"JSON in two charsets", edgetest.TextMessage, []string{json + ";charset=utf-8;charset=utf-7"}, reason.Encoding, ""},
		{"JSON in UTF-8", edgetest.TextMessage, []string{json + `;Charset="UTF-8"`}, "", ""},
		{"another JSON", edgetest.TextMessage, []string{"Content-Type: application/cloudevents+json"}, "", ""},
		{"a form", inside(`"a canary sings"`, `"&typeWebhook=incomingCall&instanceData[idInstance]=2&x="`), []string{"Content-Type: application/x-www-form-urlencoded"}, reason.Encoding, ""},
		{"a form of parts", edgetest.TextMessage, []string{"Content-Type: multipart/form-data; boundary=a"}, reason.Encoding, ""},
		{"no type at all", edgetest.TextMessage, []string{"Content-Type: json"}, reason.Encoding, ""},
		{"Content-Type doubled by a comma", edgetest.TextMessage, []string{json + ", text/plain"}, reason.Encoding, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			began := time.Now()
			e.Trap(up, edgetest.Request(test.body, test.lines...), 200, test.reason)
			if took := time.Since(began); took > 3*time.Second { // milliseconds, on an idle machine
				t.Errorf("took %s", took)
			}
			if test.reason == "" {
				e.WantRecord("outcome", "delivered")
			} else {
				e.WantRecord("outcome", "quarantined", "cause", test.cause)
			}
		})
	}
}

// TestTrapForeignInstance: with a token of one instance, nobody speaks for another, however a
// handler's parser reads names.
func TestTrapForeignInstance(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site("ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\ninstance 1101000002 other-demo-token\n}\nreverse_proxy "+up.Address))
	e.Trap(up, edgetest.Request(edgetest.TextMessage), 200, "")
	for _, foreign := range []string{
		`"idInstance":1101000002`, `"idInstance":"1101000002"`, `"idInstance":"001101000002"`,
		`"idInstance":1101000002,"idInstance":1101000001`, `"idInstance":1101000001,"idInstance":1101000002`,
		`"idInstance":1101000001,"IDINSTANCE":1101000002`, `"IDINSTANCE":1101000002,"idInstance":1101000001`,
		`"idInstance":1101000001,"\u0069dInstance":1101000002`, `"idInstance":1101000001,"\u0049dInstance":1101000002`,
		`"idInstance":1101000001,"idIn` + "\u017f" + `tance":1101000002`, `"idInstance":1101000001,"idInstance\u0000":1101000002`,
	} {
		status, why := 200, reason.Malformed
		if strings.Count(foreign, ":") == 1 {
			status, why = 403, reason.InstanceNotAllowed
		}
		e.Trap(up, edgetest.Request(strings.Replace(edgetest.TextMessage, `"idInstance":1101000001`, foreign, 1)), status, why)
	}
	for _, foreign := range []string{`,"InstanceData":{"idInstance":1101000002}}`, `,"instanceData":{"idInstance":1101000002}}`} {
		e.Trap(up, edgetest.Request(strings.TrimSuffix(edgetest.TextMessage, "}")+foreign), 200, reason.Malformed)
	}
}
