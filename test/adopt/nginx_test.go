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
	"slices"
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
	name     string // that TLS asks for, "-" for none
	path     string
	from     string   // X-Forwarded-For, which the load balancer in front has set
	direct   bool     // sent past the load balancer
	header   []string // pairs; an empty value takes the header away
	body     string
	chunked  bool
	handlers []string // what those that are asked do, one after the other; "down" for a handler that is not there
	away     bool     // all handlers are away for a second
	gone     bool     // all handlers are down and stay so
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
	{what: "all say 500", handlers: []string{"500"}},
	{what: "all are down and stay so", gone: true},
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
	old         string // port of an nginx behind the edge
	balancer    string // address of the load balancer
	handlers    []*worker
	archive     string

	mu    sync.Mutex
	steps []string
	taken atomic.Int64  // answered 2xx by a handler
	began chan struct{} // a slow handler has a request
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), http: edgetest.FreePort(t), https: edgetest.FreePort(t), old: edgetest.FreePort(t), balancer: "127.0.0.1", began: make(chan struct{}, 1)}
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
		"archive:8080", b.archive, "/etc/ssl/", b.dir+"/", "10.0.0.0/8", b.balancer+"/32", "127.0.0.1:8081", "127.0.0.1:"+b.old,
		"/var/log/nginx/", b.dir+"/", "/var/log/caddy/", b.dir+"/", "/var/lib/green-api", b.dir+"/quarantine",
		"listen 443", "listen 127.0.0.1:"+b.https, "listen 80", "listen 127.0.0.1:"+b.http,
		"/run/caddy/", b.dir+"/",
	).Replace(config)
}

// A worker is one of the handlers: it does the next step.
type worker struct {
	bench    *bench
	address  string
	server   *http.Server
	listener net.Listener
}

func (w *worker) start() {
	listener, err := net.Listen("tcp", w.address)
	if err != nil {
		w.bench.t.Error(err)
		return
	}
	w.server, w.listener = &http.Server{Handler: w}, listener
	go w.server.Serve(listener)
}

func (w *worker) stop() {
	w.listener.Close() // of which the server may not know yet
	w.server.Close()
}

func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	step := w.bench.step()
	switch step {
	case "break":
		panic(http.ErrAbortHandler)
	case "slow":
		w.bench.began <- struct{}{}
		time.Sleep(3 * time.Second)
		step = "200"
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

// nginxConfig returns a config with the inside of an http block, whose files are in a directory.
func nginxConfig(dir, inside string) string {
	config := "pid " + dir + "/nginx.pid;\nerror_log " + dir + "/error.log;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	return config + inside + "\n}\n"
}

// startNginx runs the inside of an http block until stop is called.
func (b *bench) startNginx(binary, inside, port string) (stop func()) {
	b.t.Helper()
	dir := b.t.TempDir()
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(nginxConfig(dir, inside)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "-p", dir, "-g", "daemon off; master_process off;")
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

// caddyfile makes a Caddyfile of the page one that runs here.
func (b *bench) caddyfile(config string) string {
	own := "{\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n\thttp_port " + b.http + "\n\thttps_port " + b.https +
		"\n\tlog {\n\t\toutput test_buffer\n\t\tformat json\n\t\tlevel DEBUG\n\t}\n"
	if !strings.Contains(config, "\tadmin ") {
		own += "\tadmin off\n"
	}
	comment, rest, _ := strings.Cut(config, "\n")
	if strings.HasPrefix(rest, "{") {
		config = comment + "\n" + own + strings.TrimPrefix(rest, "{\n")
	} else { // it names neither a balancer nor certificates: the addresses and the name of the requests are set up for it
		config = own + "\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t\ttrusted_proxies_strict\n\t}\n" +
			"\tgreen_api {\n\t\tquarantine " + b.dir + "/quarantine\n\t}\n}\n" + cut(rest, "hooks.example.com {\n", "hooks.example.com {\n\ttls /etc/ssl/hooks.pem /etc/ssl/hooks.key\n")
	}
	return b.place(config)
}

// startEdge runs a Caddyfile of the page until stop is called.
func (b *bench) startEdge(config string) (e *edgetest.Edge, stop func()) {
	b.t.Helper()
	b.t.Setenv("GREEN_API_TOKEN", newToken)
	b.t.Setenv("GREEN_API_OLD_TOKEN", oldToken)
	b.t.Setenv("CUSTOMER_TOKEN", customerToken)
	e = &edgetest.Edge{T: b.t, Logs: edgetest.NewLogBuffer()}
	text, err := edgetest.Adapt(b.caddyfile(config))
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
	case r.gone:
		for _, w := range b.handlers {
			w.stop()
			defer w.start()
		}
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
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(b.balancer)}}
	if r.direct {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}
	}
	name := orElse(r.name, "hooks.example.com")
	if name == "-" {
		name = "127.0.0.1" // addresses are not sent
	}
	client := &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: dialer.DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name},
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
func (r request) faulty() bool { return r.handlers != nil || r.away || r.gone }

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

// askEdge sends a request to an edge, and says what became of it and what was logged of it.
func (b *bench) askEdge(e *edgetest.Edge, r request) (text string, logged []edgetest.Record) {
	b.t.Helper()
	before := len(e.Logs.Records(b.t))
	status, taken := b.ask(r)
	text, logged = outcomeOf(status, taken), e.Logs.Records(b.t)[before:]
	if len(logged) == 0 || taken {
		return text, logged
	}
	last := logged[len(logged)-1]
	if last.Text("outcome") == "quarantined" {
		text = strconv.Itoa(status) + " kept"
	}
	return text + " `" + last.Text("reason") + "`", logged
}

// seenByEdge sends all requests to an edge with a config of the page.
func seenByEdge(t *testing.T, config string) (seen []string) {
	b := newBench(t)
	e, stop := b.startEdge(config)
	defer func() { stop() }()
	for _, r := range requests {
		if r.gone { // the edge waits for as long as it may
			stop()
			e, stop = b.startEdge(cut(config, "\tgreen_api /green-api/webhook* {\n", "\tgreen_api /green-api/webhook* {\n\t\tdeliver {\n\t\t\ttimeout 2s\n\t\t}\n"))
		}
		text, _ := b.askEdge(e, r)
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
	edgetest.Proof(t)
	needs(t, "nginx", "nginx-light")
	text := page(t, fromNginx)
	for _, document := range []string{"README.md", "README.ru.md"} {
		if !regexp.MustCompile(fmt.Sprintf(`\b%d (?:requests|запрос)`, len(requests))).MatchString(page(t, document)) {
			t.Errorf("%s does not say that there are %d requests", document, len(requests))
		}
	}
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
		t.Errorf("%s says something else than what was seen (GREEN_API_PROOFS=1 go test ./test/adopt -run TestFromNginx -update writes it):\n%s", fromNginx, differing(old, table))
	}
}

// optionsSite is a config around what the page names.
type optionsSite struct{ global, site, token, block, upstreams, proxy string }

func (o optionsSite) load() error {
	config := "{\nadmin off\nauto_https off\nlog {\noutput discard\n}\n" + o.global + "\n}\nhttps://127.0.0.1 {\n" + o.site +
		"\ngreen_api {\nauth {\ntoken " + orElse(o.token, "demo-token") + "\n}\n" + o.block + "\nreverse_proxy " + orElse(o.upstreams, "a:1 b:1") + " {\n" + o.proxy + "\n}\n}\n}\n"
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

// TestFromNginxOptions: what the page names beside a directive is an option that loads; a word of nginx is none, except
// those that the page warns of.
func TestFromNginxOptions(t *testing.T) {
	text := page(t, fromNginx)
	addresses := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(addresses, []byte("203.0.113.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		named string
		optionsSite
	}{
		{"ip_filter { allow … }", optionsSite{block: "ip_filter {\nallow green_api 203.0.113.0/24\n}"}},
		{"ip_filter { source green_api_file FILE }", optionsSite{block: "ip_filter {\nsource green_api_file " + addresses + "\n}"}},
		{"validate { max_body_size 1MiB }", optionsSite{block: "validate {\nmax_body_size 1MiB\n}"}},
		{"deliver { attempt_timeout … timeout … }", optionsSite{block: "deliver {\nattempt_timeout 40s\ntimeout 90s\n}"}},
		{"lb_policy weighted_round_robin 2 1", optionsSite{proxy: "lb_policy weighted_round_robin 2 1"}},
		{"lb_policy first", optionsSite{proxy: "lb_policy first"}},
		{"lb_policy green_api chat", optionsSite{proxy: "lb_policy green_api chat"}},
		{"unhealthy_request_count", optionsSite{proxy: "unhealthy_request_count 32"}},
		{"`max_fails`, `fail_duration`", optionsSite{proxy: "max_fails 3\nfail_duration 5s"}},
		{"transport http { dial_timeout … }", optionsSite{proxy: "transport http {\ndial_timeout 2s\n}"}},
		{"header_up X-Real-IP {client_ip}", optionsSite{proxy: "header_up X-Real-IP {client_ip}"}},
		{"dynamic a", optionsSite{proxy: "dynamic a {\nname handlers\nport 8080\n}"}},
		{"report_only", optionsSite{block: "ip_filter {\nreport_only\n}"}},
		{"`https_port 8443`, `http_port 8080`", optionsSite{global: "https_port 8443\nhttp_port 8080"}},
		{"tls { protocols tls1.3 }", optionsSite{site: "tls {\nprotocols tls1.3\n}"}},
		{"redir https://$host$request_uri", optionsSite{site: "redir https://$host$request_uri"}},
		{"log /var/log/hooks.log", optionsSite{site: "log /var/log/hooks.log"}},
		{"respond 404;", optionsSite{site: "respond 404;"}},
	} {
		if !strings.Contains(text, test.named) {
			t.Errorf("the page does not name %s", test.named)
		}
		if err := test.load(); err != nil {
			t.Errorf("%s: %v", test.named, err)
		}
	}
	for _, wrong := range []optionsSite{
		{block: "proxy_pass http://handlers"},
		{block: "upstream handlers"},
		{block: "allow all"},
		{block: "deny all"},
		{block: "client_max_body_size 1m"},
		{site: "proxy_pass http://handlers"},
		{site: "location /"},
		{site: "return 404"},
		{site: "proxy_set_header X y"},
		{upstreams: "a:1 weight=2 b:1"},
		{upstreams: "a:1 b:1 backup"},
		{proxy: "header_up X-Real-IP $remote_addr"},
		{token: "demo-token;"},
		{proxy: "lb_policy weighted_round_robin 2"},
	} {
		if wrong.load() == nil {
			t.Errorf("loads: %+v", wrong)
		}
	}
}

// TestFromNginxSameWords: what Caddy makes of nginx's words that it knows is what the page warns of.
func TestFromNginxSameWords(t *testing.T) {
	e := edgetest.Start(t, edgetest.SiteWith("", "redir /old https://$host$request_uri\nrespond /lost 404;\n"))
	base := "http://127.0.0.1:" + e.Port
	if location := e.Send("GET", base+"/old", nil).Header.Get("Location"); location != "https://$host$request_uri" {
		t.Errorf("redirects to %s", location)
	}
	if status := e.Send("POST", base+"/lost", nil).StatusCode; status != 200 {
		t.Errorf("respond 404; answers %d", status)
	}
}

// TestFromNginxHeaders: header_up and map take the placeholders of the page, and the site's header and handle_errors do
// to the answers of green_api what it says.
func TestFromNginxHeaders(t *testing.T) {
	for _, named := range []string{"header_up X-Instance {http.green_api.instance}", "map {http.green_api.instance} {shard} { … }", "header_up X-Shard {shard}"} {
		if !strings.Contains(page(t, fromNginx), named) {
			t.Errorf("the page does not name %s", named)
		}
	}
	handler := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("servers {\ntrusted_proxies static 127.0.0.1/32\ntrusted_proxies_strict\n}\n", `
	header X-Own always
	map {http.green_api.instance} {shard} {
		1101000001 first
		default second
	}
	green_api /green-api/webhook* {
		auth {
			token TOKEN
		}
		reverse_proxy `+handler.Address+` {
			header_up X-Real-IP {client_ip}
			header_up X-Instance {http.green_api.instance}
			header_up X-Shard {shard}
		}
	}
	error /broken 500
	handle_errors {
		respond own
	}
	respond 404
`))
	for _, test := range []struct {
		body, token string
		status      int
	}{{edgetest.TextMessage, edgetest.Token, 200}, {cut(edgetest.TextMessage, "1101000001", "1101000002"), edgetest.Token, 200}, {edgetest.TextMessage, "wrong", 401}} {
		answer := e.Send("POST", e.URL, strings.NewReader(test.body), "X-Forwarded-For", fromGreenAPI, "Authorization", "Bearer "+test.token)
		if answer.StatusCode != test.status || answer.Header.Get("X-Own") != "always" || answer.ContentLength != 0 {
			t.Errorf("answered %d with %d bytes, %v", answer.StatusCode, answer.ContentLength, answer.Header)
		}
	}
	want := [][]string{{fromGreenAPI, "1101000001", "first"}, {fromGreenAPI, "1101000002", "second"}}
	for i, got := range handler.Requests() {
		seen := []string{got.Header.Get("X-Real-IP"), got.Header.Get("X-Instance"), got.Header.Get("X-Shard")}
		if i >= len(want) || !slices.Equal(seen, want[i]) {
			t.Errorf("the handler got %q", seen)
		}
	}
	if n := len(handler.Requests()); n != len(want) {
		t.Errorf("%d requests", n)
	}
	if answer := e.Send("GET", "http://127.0.0.1:"+e.Port+"/broken", nil); answer.ContentLength != int64(len("own")) {
		t.Errorf("handle_errors does not see errors of others: %d bytes", answer.ContentLength)
	}
}

// TestFromNginxBackup: with `lb_policy first` the others are what nginx calls a backup.
func TestFromNginxBackup(t *testing.T) {
	main, backup := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+main.Address+" "+backup.Address+" {\nlb_policy first\n}"))
	for i, want := range [][2]int{{1, 0}, {2, 0}, {3, 0}, {3, 1}, {3, 2}} {
		if i == 3 {
			main.Close()
		}
		if status := e.Post(edgetest.TextMessage); status != 200 {
			t.Errorf("answered %d", status)
		}
		if got := [2]int{len(main.Requests()), len(backup.Requests())}; got != want {
			t.Errorf("after message %d the two have got %v, want %v", i+1, got, want)
		}
	}
}

// TestFromNginxPath: with the page's rewrite a handler gets its own path.
func TestFromNginxPath(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	inside := strings.NewReplacer("{env.GREEN_API_TOKEN}", "TOKEN", "handler-1:8080", handler.Address, "auth {", "ip_filter off\nauth {").Replace(configOf(t, page(t, fromNginx), "part of a site"))
	e := edgetest.Start(t, edgetest.SiteWith("", inside))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("answered %d", status)
	}
	if got := handler.Requests(); len(got) != 1 || got[0].Path != "/hooks" {
		t.Errorf("the handler got %+v", got)
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
