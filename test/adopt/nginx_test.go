package adopt

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

var update = flag.Bool("update", false, "write what was seen into docs/from-nginx.md")

// Addresses and tokens of the requests.
const (
	fromGreenAPI  = "46.101.109.139"
	stranger      = "198.51.100.9"
	newToken      = "New-Token-7f3a"
	oldToken      = "Old-Token-51c9"
	customerToken = "Customer-Token-20d6"
)

// A request is a row of the table in docs/from-nginx.md. Empty fields are as GREEN-API's.
type request struct {
	what     string
	method   string
	scheme   string
	host     string
	path     string
	from     string   // X-Forwarded-For, which the load balancer in front has set
	direct   bool     // sent past the load balancer
	header   []string // pairs; an empty value takes the header away
	body     string
	chunked  bool
	handlers []string // what those that are asked do, one after the other; "down" for a handler that is not there
	away     bool     // all handlers are away for a second
}

func cut(text, old, new string) string { return strings.Replace(text, old, new, 1) }

var requests = []request{
	// Where to.
	{what: "a text message, as GREEN-API sends it"},
	{what: "the URL with a slash at its end", path: "/green-api/webhook/"},
	{what: "the URL with a query", path: "/green-api/webhook?from=green-api"},
	{what: "a path below", path: "/green-api/webhook/bot"},
	{what: "a path that begins alike", path: "/green-api/webhook2"},
	{what: "another path", path: "/webhook"},
	{what: "the path in upper case", path: "/GREEN-API/WEBHOOK"},
	{what: "another name in `Host`", host: "other.example.com"},
	{what: "http in place of https", scheme: "http"},
	{what: "GET", method: "GET"},
	{what: "PUT", method: "PUT"},
	{what: "the body in chunks", chunked: true},
	// From whom.
	{what: "no token", header: []string{"Authorization", ""}},
	{what: "a wrong token", header: []string{"Authorization", "Bearer wrong-token"}},
	{what: "the old token", header: []string{"Authorization", "Bearer " + oldToken}},
	{what: "the token in lower case", header: []string{"Authorization", "Bearer " + strings.ToLower(newToken)}},
	{what: "`bearer` in lower case", header: []string{"Authorization", "bearer " + newToken}},
	{what: "the token without a scheme", header: []string{"Authorization", newToken}},
	{what: "`Bearer` twice", header: []string{"Authorization", "Bearer Bearer " + newToken}},
	{what: "an address that is not GREEN-API's", from: stranger},
	{what: "an address of GREEN-API's, claimed past the balancer", direct: true},
	{what: "the same through the balancer, which appends", from: fromGreenAPI + ", " + stranger},
	{what: "a customer's instance with the common token", body: cut(edgetest.TextMessage, "1101000001", "1101000002")},
	// What.
	{what: "the vendor's printed example, `\"idInstance\":000001`", body: cut(edgetest.StateChanged, "1101000001", "000001")},
	{what: "JSON that was cut off", body: edgetest.TextMessage[:120]},
	{what: "`typeWebhook` twice", body: cut(edgetest.TextMessage, "{", `{"typeWebhook":"stateInstanceChanged",`)},
	{what: "no `typeWebhook`", body: `{"instanceData":{"idInstance":1101000001}}`},
	{what: "a type that nobody knows", body: cut(edgetest.StateChanged, "stateInstanceChanged", "neverHeardOf")},
	{what: "a message without its text (the schema is not met)", body: edgetest.Broken("3EB0C767D097B7C7C031")},
	{what: "a message type that nobody knows", body: cut(edgetest.TextMessage, `"textMessage",`, `"holographicMessage",`)},
	{what: "a body that is packed (`Content-Encoding: gzip`)", header: []string{"Content-Encoding", "gzip"}, body: packed(edgetest.TextMessage)},
	{what: "`curl -d` without a `Content-Type`", header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
	{what: "a body of 1.5 MiB", body: cut(edgetest.TextMessage, "a canary sings", strings.Repeat("a canary sings ", 105_000))},
	// Handlers.
	{what: "it is down", handlers: []string{"down"}},
	{what: "it says 500", handlers: []string{"500", "200"}},
	{what: "it reads the request and breaks off", handlers: []string{"break", "200"}},
	{what: "it says 404", handlers: []string{"404", "200"}},
	{what: "all are away for a second", away: true},
	{what: "it takes it with 201", handlers: []string{"201"}},
	{what: "all say 400", handlers: []string{"400"}},
}

func packed(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	io.WriteString(w, text)
	w.Close()
	return out.String()
}

// A bench is what stands around the edge or the nginx: three handlers, an archive, certificates, two ports.
type bench struct {
	t           *testing.T
	dir         string
	http, https string // ports
	handlers    []*worker
	archive     string

	mu    sync.Mutex
	steps []string
	taken atomic.Int64 // answered 2xx by a handler
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), http: edgetest.FreePort(t), https: edgetest.FreePort(t)}
	selfSigned(t, filepath.Join(b.dir, "hooks.pem"), filepath.Join(b.dir, "hooks.key"))
	for range 3 {
		w := &worker{bench: b, address: "127.0.0.1:" + edgetest.FreePort(t)}
		w.start()
		t.Cleanup(w.stop)
		b.handlers = append(b.handlers, w)
	}
	b.archive = edgetest.NewUpstream(t, 200, nil).Address
	return b
}

// place puts what is here in place of what the page names.
func (b *bench) place(config string) string {
	return strings.NewReplacer(
		"handler-1:8080", b.handlers[0].address, "handler-2:8080", b.handlers[1].address, "handler-3:8080", b.handlers[2].address,
		"archive:8080", b.archive, "/etc/ssl/", b.dir+"/", "10.0.0.0/8", "127.0.0.1/32",
		"/var/log/nginx/", b.dir+"/", "/var/log/caddy/", b.dir+"/", "/var/lib/green-api", b.dir+"/quarantine",
		"listen 443", "listen 127.0.0.1:"+b.https, "listen 80", "listen 127.0.0.1:"+b.http,
		"admin unix//run/caddy/admin.sock", "",
	).Replace(config)
}

// A worker is one of the handlers: it does the next step.
type worker struct {
	bench   *bench
	address string
	server  *http.Server
}

func (w *worker) start() {
	listener, err := net.Listen("tcp", w.address)
	if err != nil {
		w.bench.t.Error(err)
		return
	}
	w.server = &http.Server{Handler: w}
	go w.server.Serve(listener)
}

func (w *worker) stop() { w.server.Close() }

func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	step := w.bench.step()
	if step == "break" {
		panic(http.ErrAbortHandler)
	}
	status, err := strconv.Atoi(step)
	if err != nil {
		panic(err)
	}
	if status/100 == 2 {
		w.bench.taken.Add(1)
	}
	rw.WriteHeader(status)
}

// step is what the handler does that is asked next. The last step stays.
func (b *bench) step() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	step := b.steps[0]
	if len(b.steps) > 1 {
		b.steps = b.steps[1:]
	}
	return step
}

func selfSigned(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hooks.example.com"}, DNSNames: []string{"hooks.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// startNginx runs the inside of an http block until stop is called.
func (b *bench) startNginx(binary, inside, port string) (stop func()) {
	b.t.Helper()
	dir := b.t.TempDir()
	config := "daemon off;\nmaster_process off;\npid " + dir + "/nginx.pid;\nerror_log " + dir + "/error.log;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config+inside+"\n}\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "-p", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	edgetest.WaitForPort(ctx, "127.0.0.1:"+port)
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// startEdge runs a Caddyfile of the page until stop is called.
func (b *bench) startEdge(config string) (e *edgetest.Edge, stop func()) {
	b.t.Helper()
	own := "{\n\tadmin off\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n\thttp_port " + b.http + "\n\thttps_port " + b.https +
		"\n\tlog {\n\t\toutput test_buffer\n\t\tformat json\n\t\tlevel DEBUG\n\t}\n"
	comment, rest, _ := strings.Cut(config, "\n")
	if strings.HasPrefix(rest, "{") {
		config = comment + "\n" + own + strings.TrimPrefix(rest, "{\n")
	} else { // it names neither a balancer nor certificates: the addresses and the name of the requests are set up for it
		config = own + "\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t\ttrusted_proxies_strict\n\t}\n" +
			"\tgreen_api {\n\t\tquarantine " + b.dir + "/quarantine\n\t}\n}\n" + cut(rest, "hooks.example.com {\n", "hooks.example.com {\n\ttls /etc/ssl/hooks.pem /etc/ssl/hooks.key\n")
	}
	b.t.Setenv("GREEN_API_TOKEN", newToken)
	b.t.Setenv("GREEN_API_OLD_TOKEN", oldToken)
	b.t.Setenv("CUSTOMER_TOKEN", customerToken)
	e = &edgetest.Edge{T: b.t, Logs: edgetest.NewLogBuffer()}
	text, err := edgetest.Adapt(b.place(config))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := caddy.Load(text, true); err != nil {
		b.t.Fatal(err)
	}
	return e, func() { stopCaddy(b.t) }
}

// ask sends a request, and says what became of it.
func (b *bench) ask(r request) (status int, taken bool) {
	b.t.Helper()
	b.mu.Lock()
	b.steps = r.handlers
	if len(b.steps) == 0 || b.steps[0] == "down" {
		b.steps = []string{"200"}
	}
	b.mu.Unlock()
	switch {
	case r.away:
		for _, w := range b.handlers {
			w.stop()
		}
		back := make(chan struct{})
		time.AfterFunc(time.Second, func() {
			for _, w := range b.handlers {
				w.start()
			}
			close(back)
		})
		defer func() { <-back }()
	case len(r.handlers) > 0 && r.handlers[0] == "down":
		b.handlers[0].stop()
		defer b.handlers[0].start()
	}
	before := b.taken.Load()
	status = b.send(r)
	return status, b.taken.Load() > before
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// send returns the status of the answer, 0 for none.
func (b *bench) send(r request) int {
	b.t.Helper()
	port, scheme := b.https, orElse(r.scheme, "https")
	if scheme == "http" {
		port = b.http
	}
	var body io.Reader = strings.NewReader(orElse(r.body, edgetest.TextMessage))
	if r.chunked {
		body = io.MultiReader(body)
	}
	out, err := http.NewRequest(orElse(r.method, "POST"), scheme+"://127.0.0.1:"+port+orElse(r.path, "/green-api/webhook"), body)
	if err != nil {
		b.t.Fatal(err)
	}
	out.Host = orElse(r.host, "hooks.example.com")
	out.Header.Set("Content-Type", "application/json; charset=utf-8")
	out.Header.Set("Authorization", "Bearer "+newToken)
	out.Header.Set("X-Forwarded-For", orElse(r.from, fromGreenAPI))
	for i := 0; i < len(r.header); i += 2 {
		if out.Header.Del(r.header[i]); r.header[i+1] != "" {
			out.Header.Set(r.header[i], r.header[i+1])
		}
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	if r.direct {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}
	}
	client := &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: dialer.DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "hooks.example.com"},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(out)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

func outcomeOf(status int, taken bool) string {
	switch {
	case status == 0 && taken:
		return "no answer, delivered"
	case status == 0:
		return "no answer"
	case taken:
		return strconv.Itoa(status) + " delivered"
	case status == 200:
		return "200, **lost**"
	}
	return strconv.Itoa(status)
}

// faulty: the row leaves marks on the handlers, so that what stands in front of them begins anew after it.
func (r request) faulty() bool { return r.handlers != nil || r.away }

// seenByNginx sends all requests to an nginx with a config of the page.
func seenByNginx(t *testing.T, config string) (seen []string) {
	binary := needs(t, "nginx", "nginx-light")
	b := newBench(t)
	stop := b.startNginx(binary, b.place(config), b.https)
	defer func() { stop() }()
	for _, r := range requests {
		seen = append(seen, outcomeOf(b.ask(r)))
		if r.faulty() {
			stop()
			stop = b.startNginx(binary, b.place(config), b.https)
		}
	}
	return seen
}

// seenByEdge sends all requests to an edge with a config of the page.
func seenByEdge(t *testing.T, config string) (seen []string) {
	b := newBench(t)
	e, stop := b.startEdge(config)
	defer func() { stop() }()
	for _, r := range requests {
		before := len(e.Logs.Records(t))
		status, taken := b.ask(r)
		text := outcomeOf(status, taken)
		if records := e.Logs.Records(t); len(records) > before && !taken {
			last := records[len(records)-1]
			if last.Text("outcome") == "quarantined" {
				text = strconv.Itoa(status) + " kept"
			}
			text += " `" + last.Text("reason") + "`"
		}
		seen = append(seen, text)
		if r.faulty() {
			stop()
			e, stop = b.startEdge(config)
		}
	}
	return seen
}

var fences = regexp.MustCompile("(?ms)^( *)```([a-z]+)\n(.*?)^ *```$")

// configOf returns the block of code of a page whose first line is a comment with that text.
func configOf(t *testing.T, text, title string) string {
	t.Helper()
	for _, found := range fences.FindAllStringSubmatch(text, -1) {
		code := found[3]
		if found[1] != "" {
			code = strings.ReplaceAll("\n"+code, "\n"+found[1], "\n")[1:]
		}
		if strings.HasPrefix(code, "# "+title+"\n") {
			return code
		}
	}
	t.Fatalf("no config %q", title)
	return ""
}

const fromNginx = "docs/from-nginx.md"

// TestFromNginx holds the table of the page to what nginx and the edge answered. `-update` writes it.
func TestFromNginx(t *testing.T) {
	if len(requests) != 40 {
		t.Errorf("%d requests, want 40", len(requests))
	}
	text := page(t, fromNginx)
	columns := []struct {
		title  string
		config string
		seen   func(*testing.T, string) []string
	}{
		{"nginx, the vendor's example", "the vendor's example", seenByNginx},
		{"the edge", "instead of the vendor's example", seenByEdge},
		{"nginx, hardened", "a hardened one", seenByNginx},
		{"the edge", "instead of the hardened one", seenByEdge},
	}
	head, rule := "| | request |", "|---|---|"
	rows := make([]string, len(requests))
	for i, r := range requests {
		rows[i] = fmt.Sprintf("| %d | %s |", i+1, r.what)
	}
	for _, column := range columns {
		head, rule = head+" "+column.title+" |", rule+"---|"
		t.Run(column.config, func(t *testing.T) {
			for i, seen := range column.seen(t, configOf(t, text, column.config)) {
				rows[i] += " " + seen + " |"
			}
		})
	}
	table := head + "\n" + rule + "\n" + strings.Join(rows, "\n") + "\n"
	before, rest, _ := strings.Cut(text, "<!-- requests -->\n")
	old, after, found := strings.Cut(rest, "<!-- /requests -->")
	if !found {
		t.Fatalf("%s has no place for the table", fromNginx)
	}
	if *update {
		if err := os.WriteFile("../../"+fromNginx, []byte(before+"<!-- requests -->\n"+table+"<!-- /requests -->"+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table {
		t.Errorf("%s says something else than what was seen (go test ./test/adopt -run TestFromNginx -update writes it):\n%s", fromNginx, differing(old, table))
	}
}

// TestFromNginxOptions: what the page names beside a directive is an option that loads; a word of nginx is none.
func TestFromNginxOptions(t *testing.T) {
	text := page(t, fromNginx)
	addresses := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(addresses, []byte("203.0.113.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(block, proxy string) error {
		config := "{\nadmin off\nauto_https off\nlog {\noutput discard\n}\n}\nhttp://127.0.0.1:8080 {\ngreen_api {\nauth {\ntoken demo-token\n}\n" + block + "\nreverse_proxy a:1 b:1 {\n" + proxy + "\n}\n}\n}\n"
		text, err := edgetest.Adapt(config)
		if err != nil {
			return err
		}
		var parsed caddy.Config
		if err := json.Unmarshal(text, &parsed); err != nil {
			return err
		}
		return caddy.Validate(&parsed)
	}
	for _, test := range []struct{ named, block, proxy string }{
		{"ip_filter { allow … }", "ip_filter {\nallow green_api 203.0.113.0/24\n}", ""},
		{"ip_filter { source green_api_file FILE }", "ip_filter {\nsource green_api_file " + addresses + "\n}", ""},
		{"validate { max_body_size 1MiB }", "validate {\nmax_body_size 1MiB\n}", ""},
		{"deliver { attempt_timeout … timeout … }", "deliver {\nattempt_timeout 40s\ntimeout 90s\n}", ""},
		{"lb_policy weighted_round_robin 2 1", "", "lb_policy weighted_round_robin 2 1"},
		{"lb_policy first", "", "lb_policy first"},
		{"lb_policy green_api chat", "", "lb_policy green_api chat"},
		{"unhealthy_request_count", "", "unhealthy_request_count 32"},
		{"`max_fails`, `fail_duration`", "", "max_fails 3\nfail_duration 5s"},
		{"transport http { dial_timeout … }", "", "transport http {\ndial_timeout 2s\n}"},
		{"header_up", "", "header_up X-Real-IP {client_ip}"},
		{"dynamic a", "", "dynamic a {\nname handlers\nport 8080\n}"},
		{"report_only", "ip_filter {\nreport_only\n}", ""},
	} {
		if !strings.Contains(text, test.named) {
			t.Errorf("the page does not name %s", test.named)
		}
		if err := load(test.block, test.proxy); err != nil {
			t.Errorf("%s: %v", test.named, err)
		}
	}
	for _, word := range []string{"proxy_pass http://handlers", "upstream handlers", "allow all", "deny all", "client_max_body_size 1m"} {
		if load(word, "") == nil {
			t.Errorf("%s loads", word)
		}
	}
}

// TestFromNginxPath: with the page's rewrite a handler gets its own path.
func TestFromNginxPath(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	inside := strings.NewReplacer("{env.GREEN_API_TOKEN}", "TOKEN", "handler-1:8080", handler.Address, "auth {", "ip_filter off\nauth {").Replace(configOf(t, page(t, fromNginx), "part"))
	e := edgetest.Start(t, edgetest.SiteWith("", inside))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("answered %d", status)
	}
	if got := handler.Requests(); len(got) != 1 || got[0].Path != "/hooks" {
		t.Errorf("the handler got %+v", got)
	}
}

// TestFromNginxMove: the edge of the page in front of the old nginx refuses nothing, tells what it would have done,
// and nginx decides as before.
func TestFromNginxMove(t *testing.T) {
	binary := needs(t, "nginx", "nginx-light")
	text := page(t, fromNginx)
	b := newBench(t)
	old := edgetest.FreePort(t)
	hardened := regexp.MustCompile(`listen 443 ssl[^;]*;`).ReplaceAllString(configOf(t, text, "a hardened one"), "listen 127.0.0.1:"+old+";")
	hardened = strings.Replace(hardened, "listen 80;", "listen 127.0.0.1:"+edgetest.FreePort(t)+";", 1)
	hardened = strings.Replace(hardened, "\tset_real_ip_from 10.0.0.0/8;\n", "\tset_real_ip_from 127.0.0.1;\n", 1)
	stop := b.startNginx(binary, b.place(hardened), old)
	defer stop()
	e, stopEdge := b.startEdge(strings.ReplaceAll(configOf(t, text, "the edge in front of the old nginx"), "127.0.0.1:8081", "127.0.0.1:"+old))
	defer stopEdge()
	for _, test := range []struct {
		request
		status       int
		taken        bool
		outcome, why string // that would have been
	}{
		{request{what: "genuine"}, 200, true, "", ""},
		{request{what: "broken", body: edgetest.TextMessage[:120]}, 200, true, "quarantined", "malformed"},
		{request{what: "fails its schema", body: edgetest.Broken("3EB0C767D097B7C7C031")}, 200, true, "quarantined", "schema"},
		{request{what: "old token, which the edge does not know", header: []string{"Authorization", "Bearer " + oldToken}}, 200, true, "refused", "bad_token"},
		{request{what: "stranger", from: stranger}, 502, false, "refused", "misrouted"},
		{request{what: "another path", path: "/webhook"}, 404, false, "", ""},
	} {
		if status, taken := b.ask(test.request); status != test.status || taken != test.taken {
			t.Errorf("%s: %s, want %s", test.what, outcomeOf(status, taken), outcomeOf(test.status, test.taken))
		}
		if test.outcome == "" {
			continue
		}
		found := false
		for _, r := range e.Logs.Records(t) {
			found = found || r.Text("report_only") == "true" && strings.Contains(r.Text("would_be"), test.outcome) && r.Text("reason") == test.why
		}
		if !found {
			t.Errorf("%s: the log does not say that it would be %s for %s:\n%s", test.what, test.outcome, test.why, e.Logged("report_only"))
		}
	}
}

func differing(old, seen string) (text string) {
	was := strings.Split(old, "\n")
	for i, line := range strings.Split(seen, "\n") {
		if i >= len(was) || was[i] != line {
			text += "seen " + line + "\n"
			if i < len(was) {
				text += "page " + was[i] + "\n"
			}
		}
	}
	return text
}
