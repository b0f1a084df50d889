package greenapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func newAuth(t testing.TB, a Auth) *Auth {
	t.Helper()
	if err := a.provision(caddy.Context{}, nil); err != nil {
		t.Fatal(err)
	}
	return &a
}

func TestAuthJudge(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:demo-token"))
	for _, test := range []struct {
		token  string // as in the console
		header []string
		want   outcome.TokenState
	}{
		{"abc", []string{"Bearer abc"}, outcome.TokenRight},
		{"abc", []string{"bearer abc"}, outcome.TokenRight},
		{"abc", []string{"BEARER   abc"}, outcome.TokenRight},
		{"abc", []string{"abc"}, outcome.TokenRight},
		{"abc", []string{"Basic abc"}, outcome.TokenWrong},
		{"abc", []string{"Bearer abcd"}, outcome.TokenWrong},
		{"abc", []string{"Bearer ab"}, outcome.TokenWrong},
		{"abc", []string{"Bearer ABC"}, outcome.TokenWrong},
		{"Bearer abc", []string{"Bearer abc"}, outcome.TokenRight},
		{"Bearer abc", []string{"bEaReR abc"}, outcome.TokenRight},
		{"bearer abc", []string{"Bearer abc"}, outcome.TokenRight},
		{"Bearer abc", []string{"Bearer Bearer abc"}, outcome.TokenWrong},
		{basic, []string{basic}, outcome.TokenRight},
		{basic, []string{strings.Replace(basic, "Basic", "basic", 1)}, outcome.TokenRight},
		{basic, []string{strings.TrimPrefix(basic, "Basic ")}, outcome.TokenWrong},
		{basic, []string{strings.Replace(basic, "Basic", "Bearer", 1)}, outcome.TokenWrong},
		{"abc", nil, outcome.TokenNone},
		{"abc", []string{""}, outcome.TokenNone},
		{"abc", []string{"Bearer"}, outcome.TokenWrong},
		{"abc", []string{"Bearer "}, outcome.TokenWrong},
		{"abc", []string{"Bearer abc abc"}, outcome.TokenWrong},
		{"abc", []string{"Digest abc"}, outcome.TokenWrong},
		{"abc", []string{"Bearer abc", "Bearer abc"}, outcome.TokenWrong}, // doubled
		{"abc", []string{"Bearer nope", "Bearer abc"}, outcome.TokenWrong},
		{"abc", []string{"Bearer abc,Bearer abc"}, outcome.TokenWrong},
		{"abc", []string{"Bearer аbc"}, outcome.TokenWrong}, // Cyrillic
		{"abc", []string{"Bearer abc\x00"}, outcome.TokenWrong},
		{"abc", []string{"Bearer\tabc"}, outcome.TokenWrong},
		{"abc", []string{"Bearer " + strings.Repeat("a", 1<<20)}, outcome.TokenWrong},
	} {
		a := newAuth(t, Auth{Token: []string{"other-demo-token", test.token}})
		if got := a.worth(http.Header{"Authorization": test.header}); got != test.want {
			t.Errorf("token %q: %.60q is %s, want %s", test.token, test.header, got, test.want)
		}
	}
}

func TestAuthCheckInstance(t *testing.T) {
	both := Auth{Token: []string{"shared"}, Instance: map[string][]string{"1101000001": {"own-1", "own-1-old"}, "0001101000002": {"own-2"}}}
	only := Auth{Instance: map[string][]string{"1101000001": {"own-1", "twin"}, "1101000002": {"own-2", "twin"}}}
	for _, test := range []struct {
		auth            Auth
		token, instance string
		admitted        bool
	}{
		{both, "own-1", "1101000001", true},
		{both, "own-1-old", "1101000001", true},
		{both, "shared", "1101000001", false}, // it has tokens of its own
		{both, "own-2", "1101000001", false},
		{both, "own-2", "1101000002", true},
		{both, "shared", "1101000002", false},
		{both, "shared", "1101000003", true},
		{both, "own-1", "1101000003", false},
		{only, "own-1", "1101000001", true},
		{only, "own-1", "1101000003", false},
		{only, "twin", "1101000001", true},
		{only, "twin", "1101000002", true},
		{only, "twin", "1101000003", false},
		{Auth{Off: true}, "", "1101000001", true},
	} {
		a := newAuth(t, test.auth)
		v := &visit{Case: outcome.Case{Header: http.Header{"Authorization": {"Bearer " + test.token}}}}
		v.N = parsed(t, fmt.Sprintf(`{"typeWebhook":"x","instanceData":{"idInstance":%s}}`, test.instance))
		a.look(v)
		if end := a.check(v); end != nil {
			t.Errorf("%s for %s: refused before the body: %s", test.token, test.instance, end.Reason)
		}
		if got := a.checkInstance(v) == nil; got != test.admitted {
			t.Errorf("%s for %s: admitted %t, want %t", test.token, test.instance, got, test.admitted)
		}
	}
	// As a string, an id may have leading zeros; a handler that reads a number does not see them.
	a := newAuth(t, both)
	v := &visit{Case: outcome.Case{Header: http.Header{"Authorization": {"Bearer shared"}}}}
	v.N = parsed(t, `{"typeWebhook":"x","instanceData":{"idInstance":"001101000001"}}`)
	if a.checkInstance(v) == nil {
		t.Error("leading zeros get past an instance's own tokens")
	}
}

// TestTokenWithdrawn: a token that is withdrawn while the body is on its way admits nothing any more.
func TestTokenWithdrawn(t *testing.T) {
	a := newAuth(t, Auth{Token: []string{"shared"}})
	v := &visit{Case: outcome.Case{Header: http.Header{"Authorization": {"Bearer shared"}}}}
	v.N = parsed(t, `{"typeWebhook":"x","instanceData":{"idInstance":1101000001}}`)
	a.look(v)
	if end := a.checkInstance(v); end != nil {
		t.Fatalf("refused: %s", end.Reason)
	}
	a.set.Store(newAuth(t, Auth{Token: []string{"other"}}).set.Load())
	if a.checkInstance(v) == nil {
		t.Error("admitted")
	}
}

// TestRefusedInstances: the status shows instances that are refused until they are let in, but none that a stranger can
// make up.
func TestRefusedInstances(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	closed, open := "ip_filter {\nallow 127.0.0.1\n}\n", "ip_filter off\n"
	auth := "auth {\ntoken TOKEN\ninstance 1101000009 own-demo-token\n}\nreverse_proxy " + up.Address
	config, admin := edgetest.WithAdmin(t, edgetest.Site(closed+auth))
	e := edgetest.Start(t, config)
	of := func(instance string) string { return strings.Replace(edgetest.TextMessage, "1101000001", instance, 1) }
	wrong, own := "Bearer wrong-canary", "Bearer own-demo-token"
	want := func(when string, want ...string) {
		t.Helper()
		var s api.Status
		if err := json.Unmarshal([]byte(edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status")), &s); err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, one := range s.Refused {
			got = append(got, fmt.Sprintf("%s %s %s %t", one.Instance, one.Name, one.Reason, one.Known))
			if since := time.Since(one.At); since < 0 || since > time.Minute || one.Since.After(one.At) {
				t.Errorf("%s: %+v", when, one)
			}
		}
		if s.Refused == nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	want("at first")
	e.Post(of("1101000009"), "Authorization", wrong)
	e.Post(of("1101000001"), "Authorization", "")
	e.Post(of("1101000005"), "Authorization", wrong)
	e.Post("{", "Authorization", wrong)
	want("wrong tokens", "1101000009 default bad_token true")
	e.Post(of("1101000001"))
	e.Post(of("1101000001"), "Authorization", "")
	want("of one that was let in before", "1101000001 default no_token true", "1101000009 default bad_token true")
	e.Post(of("1101000001"))
	e.Post(of("1101000009"), "Authorization", own)
	want("let in")
	e.Post(of("1101000009"))
	e.Post(of("1101000007"), "Authorization", own)
	want("the token of another", "1101000007 default instance_not_allowed false", "1101000009 default instance_not_allowed true")
	e.Post(of("1101000009"), "Authorization", own)
	e.Post(of("1101000007"))
	want("let in again")
	if err := e.Load(strings.Replace(config, closed, open, 1)); err != nil {
		t.Fatal(err)
	}
	e.Post(of("1101000009"), "Authorization", wrong)
	want("from anywhere")
}

// TestAuthThroughCaddy: what the sender is told, and what the operator reads.
func TestAuthThroughCaddy(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Site("ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\ninstance 1101000009 own-demo-token\n}\nreverse_proxy " + up.Address)
	own := strings.Replace(edgetest.TextMessage, "1101000001", "1101000009", 1)
	for _, test := range []struct {
		name, body string
		headers    []string
		status     int
		want       []string
	}{
		{"right", edgetest.TextMessage, nil, 200, []string{"outcome", "delivered"}},
		{"none", edgetest.TextMessage, []string{"Authorization", ""}, 401, []string{"reason", "no_token", "level", "warn", "claimed_instance", "1101000001", "client_ip", "127.0.0.1"}},
		{"wrong", edgetest.TextMessage, []string{"Authorization", "Bearer wrong-canary"}, 401, []string{"reason", "bad_token", "claimed_instance", "1101000001"}},
		{"wrong, long body", edgetest.TextMessage + strings.Repeat(" ", 64<<10), []string{"Authorization", "Bearer x"}, 401, []string{"reason", "bad_token", "claimed_instance", ""}},
		{"wrong, broken body", "{", []string{"Authorization", "Bearer x"}, 401, []string{"reason", "bad_token", "claimed_instance", ""}},
		{"own", own, []string{"Authorization", "Bearer own-demo-token"}, 200, []string{"outcome", "delivered", "instance", "1101000009"}},
		{"of another instance", edgetest.TextMessage, []string{"Authorization", "Bearer own-demo-token"}, 403, []string{"reason", "instance_not_allowed", "level", "warn", "instance", "1101000001"}},
		{"shared for one with its own", own, nil, 403, []string{"reason", "instance_not_allowed", "instance", "1101000009"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, config)
			before := len(up.Requests())
			response := e.Send(http.MethodPost, e.URL, strings.NewReader(test.body), test.headers...)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if test.status == 401 && response.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", response.Header.Get("WWW-Authenticate"))
			}
			if asked := len(up.Requests()) > before; asked != (test.status == 200) {
				t.Errorf("a handler was asked: %t", asked)
			}
			e.WantRecord(test.want...)
			for _, secret := range []string{edgetest.Token, "own-demo-token", "wrong-canary"} {
				if strings.Contains(e.Logs.All(), secret) {
					t.Errorf("the log shows the token %s", secret)
				}
			}
		})
	}
}

// TestAuthRefusesAtOnce: a refusal does not wait for a body that never comes.
func TestAuthRefusesAtOnce(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site("ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\n}"))
	for _, test := range []struct {
		name, head string
		within     time.Duration
	}{
		{"no body", "POST /green-api/webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 5 * time.Second},
		{"expects", "POST /green-api/webhook HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n", time.Second},
		{"not POST", "PUT /green-api/webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + edgetest.Token + "\r\nContent-Length: 100\r\n\r\n", time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			began := time.Now()
			if response := e.Raw(test.head); response.StatusCode/100 != 4 || !response.Close {
				t.Errorf("status %d, close %t", response.StatusCode, response.Close)
			}
			if took := time.Since(began); took > test.within {
				t.Errorf("took %s", took)
			}
		})
	}
}

// FuzzAuthorization: only the token itself is the token.
func FuzzAuthorization(f *testing.F) {
	a := newAuth(f, Auth{Token: []string{"abc", "Basic ZGVtbzpkZW1v"}})
	for _, seed := range []string{"Bearer abc", "bearer  abc", "abc", "Basic ZGVtbzpkZW1v", "Bearer", "Bearer abc ", "Bearer \xffabc", "Bearer abc,x", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		fields := strings.Split(strings.Trim(header, " "), " ")
		scheme, secret := strings.ToLower(fields[0]), fields[len(fields)-1]
		want := header == "" || len(fields) == 1 && secret == "abc" || scheme == "bearer" && secret == "abc" || scheme == "basic" && secret == "ZGVtbzpkZW1v"
		if got := a.worth(http.Header{"Authorization": {header}}); (got == outcome.TokenRight) && !want {
			t.Errorf("%q is right", header)
		}
	})
}

func BenchmarkAuth(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			config := Auth{Instance: make(map[string][]string)}
			for i := range n {
				config.Instance[fmt.Sprint(1101000000+i)] = []string{fmt.Sprintf("demo-token-%d", i)}
			}
			a := newAuth(b, config)
			header := http.Header{"Authorization": {"Bearer demo-token-0"}}
			b.ReportAllocs()
			for b.Loop() {
				if a.worth(header) != outcome.TokenRight {
					b.Fatal("not right")
				}
			}
		})
	}
}

// TestTokenWithBraces: a token that has braces of its own can be written, and the error of one that
// is not says how.
func TestTokenWithBraces(t *testing.T) {
	text, err := edgetest.Adapt("http://:8080 {\ngreen_api {\nauth {\ntoken abc\\{x\\} \"Bearer d\\{e}\"\n}\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	if want := `"token":["abc\\{x\\}","Bearer d\\{e}"]`; !strings.Contains(string(text), want) {
		t.Errorf("%s: no %s", text, want)
	}
	set, err := token.NewSet([]string{`abc\{x\}`, `Bearer d\{e}`}, nil, resolve)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"abc{x}", "d{e}"} {
		if set.Find(http.Header{"Authorization": {"Bearer " + secret}}) == nil {
			t.Errorf("%s is not admitted", secret)
		}
	}
	if _, err := token.NewSet([]string{"abc{x}"}, nil, resolve); err == nil || !strings.Contains(err.Error(), `a backslash before it, as in \{`) || strings.Contains(err.Error(), "abc") {
		t.Errorf("unescaped: %v", err)
	}
}

// TestInstanceSpellings: two spellings of an id are one instance, which is never merged silently.
func TestInstanceSpellings(t *testing.T) {
	_, err := token.NewSet(nil, map[string][]string{"07": {"a"}, "7": {"b"}}, resolve)
	if err == nil || !strings.Contains(err.Error(), "instance 7 is there twice") {
		t.Errorf("in the config: %v", err)
	}
	a := &Auth{Instance: map[string][]string{"7": {"a"}}, set: new(atomic.Pointer[token.Set])}
	if _, _, err := a.parseFile([]byte("007 b\n")); err == nil || !strings.Contains(err.Error(), "instance 7 is in the config, too") {
		t.Errorf("in config and file: %v", err)
	}
}

func parsed(t testing.TB, body string) *notification.Notification {
	t.Helper()
	n, err := notification.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInstancesFileParsed: what a file of instances says is taken with the tokens of the config, and with its
// placeholders resolved.
func TestInstancesFileParsed(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		now        int
	}{
		"with the config's":                 {"8 b\n", "", 2},
		"in the config, too":                {"007 b\n", "instance 7 is in the config, too", 0},
		"a brace that is no placeholder":    {"8 s3cret{x}\n", `as in \{`, 0},
		"a brace with a backslash":          {`8 s3cret\{x\}` + "\n", "", 2},
		"a placeholder that does not exist": {"8 {env.GREEN_API_TEST_NOT_SET}\n", "{env.GREEN_API_TEST_NOT_SET} is not set", 0},
		"a bad line":                        {"8\n", "line 1: instance 8: no token", 0},
	} {
		a := &Auth{Instance: map[string][]string{"7": {"a"}}, set: new(atomic.Pointer[token.Set])}
		_, use, err := a.parseFile([]byte(test.text))
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v, want %q", name, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if use(); len(a.set.Load().Own) != test.now {
			t.Errorf("%s: %v", name, a.set.Load().Own)
		}
	}
}

func TestInstancesFileRefused(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "bad": "1101000001 a\nwhatsapp TOKEN\n", "twice": "1101000009 a\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"missing": "missing: no such file or directory", "empty": "no instance in it", "bad": "line 2: the id is not 1 to 20 digits", "twice": "instance 1101000009 is in the config, too",
	} {
		config := "http://:8080 {\ngreen_api {\nauth {\ninstance 1101000009 x\ninstances " + filepath.Join(dir, name) + "\n}\n}\n}\n"
		if err := loadConfig(t, config); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "TOKEN") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestByteOrderMark: an error at load names it.
func TestByteOrderMark(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	for _, test := range []struct{ text, block string }{
		{"1101000001 a\n", "auth {\ninstances " + file + "\n}"},
		{"203.0.113.7\n", "ip_filter {\nsource green_api_file " + file + "\n}\nauth off"},
	} {
		if err := os.WriteFile(file, []byte("\xef\xbb\xbf"+test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := loadConfig(t, strings.ReplaceAll(edgetest.Site(test.block), "PORT", "8080"))
		if err == nil || !strings.Contains(err.Error(), file+": it begins with a byte-order mark (UTF-8); want UTF-8 without one") {
			t.Errorf("%s: %v", test.block, err)
		}
	}
}

// TestTiming looks for a difference in time between tokens of one length of which some are almost
// right and some not at all: Welch's t over interleaved samples, as dudect does. It is run by hand, `make timing`, on a machine that does nothing else.
func TestTiming(t *testing.T) {
	if os.Getenv("GREEN_API_TIMING") == "" {
		t.Skip("by hand: make timing")
	}
	const token = "0123456789abcdef0123456789abcdef"
	for _, config := range []struct {
		name string
		auth Auth
	}{
		{"one token", Auth{Token: []string{token}}},
		{"a thousand tokens", Auth{Token: []string{token}, Instance: manyInstances(1000)}},
	} {
		a := newAuth(t, config.auth)
		far, near := tokensLike(token, 0), tokensLike(token, len(token)-4)
		worst := math.Inf(1)
		for range 3 { // what is there is there each time; a neighbour's noise is not
			worst = min(worst, math.Abs(welch(a, far, near)))
		}
		t.Logf("%s: t = %.2f", config.name, worst)
		if worst > 4.5 { // dudect's bound
			t.Errorf("%s: the time of a look-up tells of the token, t = %.2f", config.name, worst)
		}
	}
}

// tokensLike are many headers with tokens of the same length that are right in their first bytes.
// Many, for each has its own place in memory, which tells in nanoseconds, too.
func tokensLike(token string, right int) []http.Header {
	headers := make([]http.Header, 4096)
	for i := range headers {
		text := []byte(token)
		for at := right; at < len(text); at++ {
			text[at] = "ghijklmnopqrstuv"[rand.IntN(16)]
		}
		headers[i] = http.Header{"Authorization": {"Bearer " + string(text)}}
	}
	return headers
}

func manyInstances(n int) map[string][]string {
	instances := make(map[string][]string)
	for i := range n {
		id := strings.Repeat("1", 9) + string([]byte{byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
		instances[id] = []string{"token-of-" + id}
	}
	return instances
}

// welch is Welch's t of the times that two classes of headers take, each without its slowest twentieth.
func welch(a *Auth, x, y []http.Header) float64 {
	const samples, calls = 60_000, 8
	var times [2][]float64
	for range samples {
		class := rand.IntN(2)
		h := x[rand.IntN(len(x))]
		if class == 1 {
			h = y[rand.IntN(len(y))]
		}
		began := time.Now()
		for range calls {
			a.worth(h)
		}
		times[class] = append(times[class], float64(time.Since(began)))
	}
	var mean, variance [2]float64
	for i, all := range times {
		slices.Sort(all)
		all = all[:len(all)*19/20]
		times[i] = all
		for _, v := range all {
			mean[i] += v / float64(len(all))
		}
		for _, v := range all {
			variance[i] += (v - mean[i]) * (v - mean[i]) / float64(len(all)-1)
		}
	}
	return (mean[0] - mean[1]) / math.Sqrt(variance[0]/float64(len(times[0]))+variance[1]/float64(len(times[1])))
}
