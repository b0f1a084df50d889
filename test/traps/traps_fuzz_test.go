package traps

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// fuzzHandler stands behind green_api and says what of a request should not have come so far.
type fuzzHandler struct{}

// fuzzFaults are what it has said.
var fuzzFaults struct {
	mu    sync.Mutex
	said  []string
	taken int
}

func init() {
	caddy.RegisterModule(fuzzHandler{})
	httpcaddyfile.RegisterHandlerDirective("test_fuzz", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return fuzzHandler{}, nil
	})
}

func (fuzzHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_fuzz", New: func() caddy.Module { return new(fuzzHandler) }}
}

func (fuzzHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = fit(r, body)
	}
	fuzzFaults.mu.Lock()
	defer fuzzFaults.mu.Unlock()
	fuzzFaults.taken++
	if err != nil {
		fuzzFaults.said = append(fuzzFaults.said, fmt.Sprintf("%v: %q %q", err, r.Header, body))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (fuzzHandler) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

// fit says what is wrong with a request that a handler got, by other means than the gates'.
func fit(r *http.Request, body []byte) error {
	token := strings.Fields(r.Header.Get("Authorization"))
	switch {
	case r.Method != http.MethodPost:
		return errors.New("no POST")
	case len(r.Header["Authorization"]) != 1 || len(token) == 0 || token[len(token)-1] != edgetest.Token:
		return errors.New("no token")
	case len(r.Header["Content-Type"]) > 1 || r.Header.Get("Content-Encoding") != "" && !strings.EqualFold(r.Header.Get("Content-Encoding"), "identity"):
		return errors.New("encoded")
	case r.ContentLength != int64(len(body)) || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0:
		return errors.New("not whole")
	case len(body) > 4<<10:
		return errors.New("too large")
	}
	// Strict, but for broken UTF-8, which encoding/json and the gates take alike.
	strict := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowInvalidUTF8(true))
	if _, err := strict.ReadValue(); err != nil {
		return err
	}
	if _, err := strict.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	// As a handler in Go reads it, without regard to upper case, the last of two.
	var read struct {
		Type     string `json:"typeWebhook"`
		Instance struct {
			ID json.RawMessage `json:"idInstance"`
		} `json:"instanceData"`
		Message struct {
			Type string `json:"typeMessage"`
		} `json:"messageData"`
	}
	if err := json.Unmarshal(body, &read); err != nil {
		return err
	}
	if id := strings.TrimLeft(strings.Trim(string(read.Instance.ID), `"`), "0"); read.Type == "" || id != "1101000001" {
		return fmt.Errorf("type %q of instance %q", read.Type, id)
	}
	placeholder := func(name string) string {
		text, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.green_api." + name)
		return text
	}
	if placeholder("type") != read.Type || placeholder("message") != read.Message.Type {
		return fmt.Errorf("judged as %q %q, read as %q %q", placeholder("type"), placeholder("message"), read.Type, read.Message.Type)
	}
	return nil
}

// FuzzRequest sends any bytes over a connection into a whole Caddy. Only notifications reach the
// handlers, and nothing but HTTP comes back.
func FuzzRequest(f *testing.F) {
	port := edgetest.FreePort(f)
	edgetest.NewLogBuffer()
	dir := f.TempDir()
	block := "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\n}\nvalidate {\nmax_body_size 4KiB\nmax_kept_body 8KiB\n}\n"
	config := edgetest.SiteWith("servers {\ntimeouts {\nread_body 2s\nread_header 2s\n}\n}\n", "route {\ngreen_api {\n"+block+"}\ntest_fuzz\n}\n")
	config = strings.NewReplacer("PORT", port, "quarantine DIR", "quarantine "+filepath.Join(dir, "q")+" {\nmax_size 1MiB\n}", "TOKEN", edgetest.Token, "level DEBUG", "level ERROR").Replace(config)
	text, err := edgetest.Adapt(config)
	if err != nil {
		f.Fatal(err)
	}
	if err := caddy.Load(text, true); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			f.Error(err)
		}
	})
	chunked := edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\n"
	for _, seed := range []string{
		edgetest.Request(edgetest.TextMessage), edgetest.Request(edgetest.StateChanged), edgetest.Request(edgetest.TextMessage) + edgetest.Request(edgetest.StateChanged), edgetest.Request(`{"typeWebhook":"x"}`),
		chunked + edgetest.Chunks(edgetest.TextMessage, 50), chunked + edgetest.Chunks(edgetest.TextMessage, 50) + edgetest.Request(edgetest.TextMessage),
		edgetest.RawHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + edgetest.Chunks(edgetest.TextMessage, 400),
		edgetest.Request(edgetest.TextMessage, "Content-Encoding: gzip"), edgetest.Request(edgetest.TextMessage, "Content-Type: a", "Content-Type: b"), edgetest.Request(edgetest.TextMessage, "Authorization: x"),
		edgetest.Request(edgetest.TextMessage, "Expect: 100-continue"), edgetest.Request(edgetest.TextMessage, "Connection: Authorization"), edgetest.Request(edgetest.TextMessage, "Connection: Upgrade", "Upgrade: h2c"),
		strings.Replace(edgetest.Request(edgetest.TextMessage), "POST", "PUT", 1),
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST http://x/ HTTP/1.0\r\n\r\n", "\x16\x03\x01\x00\x05",
		edgetest.Request(strings.Replace(edgetest.TextMessage, `"idInstance":`, `"IdInstance":2,"idInstance":`, 1)),
		edgetest.Request(strings.Replace(edgetest.TextMessage, `{`, `{"typewebhook":"a",`, 1)),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { // the other side may stop to read
			conn.Write(data)
			conn.(*net.TCPConn).CloseWrite()
		}()
		answers, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("hangs: %q", answers)
		}
		if len(answers) > 0 && !bytes.HasPrefix(answers, []byte("HTTP/1.")) && answers[0] != 0 { // 0 begins HTTP/2
			t.Errorf("answers %q", answers)
		}
		fuzzFaults.mu.Lock()
		defer fuzzFaults.mu.Unlock()
		for _, said := range fuzzFaults.said {
			t.Error(said)
		}
		fuzzFaults.said = nil
		for line := range strings.Lines(edgetest.CurrentLog.All()) {
			if strings.Contains(line, "panic") {
				t.Error(line)
			}
		}
		edgetest.NewLogBuffer()
	})
}
