package greenapi

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// TestOutcomes takes one notification of each kind through a whole Caddy with two handlers behind
// it.
func TestOutcomes(t *testing.T) {
	one, two := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 204, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+`
		validate {
			max_body_size 2KiB
			max_kept_body 4KiB
			drop deviceInfo incomingMessageReceived.stickerMessage
		}
		reverse_proxy `+one.Address+" "+two.Address))

	sticker := strings.Replace(edgetest.TextMessage, `"textMessage","textMessageData"`, `"stickerMessage","fileMessageData"`, 1)
	padded := func(n int) string { return edgetest.TextMessage + strings.Repeat(" ", n-len(edgetest.TextMessage)) }
	for _, test := range []struct {
		name    string
		body    string
		headers []string
		status  int
		outcome string
		reason  string
		level   string
	}{
		{"genuine", edgetest.TextMessage, nil, 200, "delivered", "", "info"},
		{"state", edgetest.StateChanged, nil, 200, "delivered", "", "info"},
		{"no token", edgetest.TextMessage, []string{"Authorization", ""}, 401, "refused", "no_token", "warn"},
		{"wrong token", edgetest.TextMessage, []string{"Authorization", "Bearer nope"}, 401, "refused", "bad_token", "warn"},
		{"dropped type", `{"typeWebhook":"deviceInfo","instanceData":{"idInstance":1}}`, nil, 200, "dropped", "unwanted", "debug"},
		{"dropped message type", sticker, nil, 200, "dropped", "unwanted", "debug"},
		{"unknown type", `{"typeWebhook":"brandNew","instanceData":{"idInstance":1}}`, nil, 200, "quarantined", "unknown_type", "warn"},
		{"unknown message type", strings.Replace(edgetest.TextMessage, `"textMessage"`, `"brandNewMessage"`, 1), nil, 200, "delivered", "unknown_message", "warn"},
		{"schema", strings.Replace(edgetest.TextMessage, `"a canary sings"`, "5", 1), nil, 200, "quarantined", "schema", "error"},
		{"malformed", edgetest.TextMessage[:100], nil, 200, "quarantined", "malformed", "error"},
		{"empty", "", nil, 200, "quarantined", "malformed", "error"},
		{"encoded", edgetest.TextMessage, []string{"Content-Encoding", "gzip"}, 200, "quarantined", "encoding", "error"},
		{"identity", edgetest.TextMessage, []string{"Content-Encoding", "identity"}, 200, "delivered", "", "info"},
		{"as long as may be", padded(2 << 10), nil, 200, "delivered", "", "info"},
		{"too large", padded(2<<10 + 1), nil, 200, "quarantined", "too_large", "error"},
		{"too large to keep", padded(4<<10 + 1), nil, 413, "refused", "too_large", "error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			if got := e.Post(test.body, test.headers...); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			e.WantRecord("outcome", test.outcome, "reason", test.reason, "level", test.level)
		})
	}
	for _, request := range append(one.Requests(), two.Requests()...) {
		if len(request.Body) < len(edgetest.StateChanged) {
			t.Errorf("a handler was asked about %q", request.Body)
		}
	}
	if len(one.Requests()) == 0 || len(two.Requests()) == 0 {
		t.Error("not balanced over both handlers")
	}
	for _, secret := range []string{edgetest.Token, "canary sings", "Test Sender", "79001234568"} {
		for _, r := range e.Logs.Records(t) {
			for key, value := range r {
				if text, ok := value.(string); ok && strings.Contains(text, secret) {
					t.Errorf("record has %q in field %s", secret, key)
				}
			}
		}
	}
}

func TestMethods(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		response := e.Send(method, e.URL, nil)
		if response.StatusCode != 405 || response.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
		e.WantRecord("outcome", "refused", "reason", "method", "level", "debug")
	}
	if n := len(up.Requests()); n != 0 {
		t.Errorf("handler was asked %d times", n)
	}
}

// TestNoUnexplained200 has everything that once answered 200 where nobody took the notification.
func TestNoUnexplained200(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	broken := edgetest.NewUpstream(t, 500, nil)
	proxied := "green_api /green-api/webhook* {\n" + edgetest.Loopback + "reverse_proxy " + up.Address + "\n}\nrespond 404\n"
	for _, test := range []struct {
		name   string
		site   string
		path   string
		host   string
		status int
	}{
		{"vendor's URL", proxied, "/green-api/webhook", "", 200},
		{"with trailing slash", proxied, "/green-api/webhook/", "", 200},
		{"wrong path", proxied, "/green-api/wrong", "", 404},
		{"root", proxied, "/", "", 404},
		{"wrong host", proxied, "/green-api/webhook", "wrong.example.com", 200}, // the site is for every host
		{
			"wrong host, site with a host", "@host host hooks.example.com\nhandle @host {\n" + proxied + "}\nrespond 404\n",
			"/green-api/webhook", "wrong.example.com", 404,
		},
		{"nothing behind", "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\n", "/green-api/webhook", "", 502},
		{"only a header behind", "green_api {\n" + edgetest.Loopback + "}\nheader X-Edge yes\n", "/green-api/webhook", "", 502},
		{"only respond 404 behind", "green_api {\n" + edgetest.Loopback + "}\nrespond 404\n", "/green-api/webhook", "", 502},
		{
			"handle_errors says 200", "green_api {\n" + edgetest.Loopback + "reverse_proxy " + broken.Address + "\n}\nhandle_errors {\nrespond oops 200\n}\n",
			"/green-api/webhook", "", 502,
		},
		{
			"error behind, handle_errors says 200", "green_api {\n" + edgetest.Loopback + "deliver {\ntimeout 300ms\n}\n}\nerror 503\nhandle_errors {\nrespond oops 200\n}\n",
			"/green-api/webhook", "", 503,
		},
		{
			"handle blocks behind", "green_api {\n" + edgetest.Loopback + "}\nhandle /green-api/* {\nreverse_proxy " + up.Address + "\n}\nhandle {\nrespond 404\n}\n",
			"/green-api/webhook", "", 200,
		},
		{
			"handle blocks behind, none matches", "green_api {\n" + edgetest.Loopback + "}\nhandle /elsewhere {\nreverse_proxy " + up.Address + "\n}\n",
			"/green-api/webhook", "", 502,
		},
		{
			"inside a handle block", "handle /green-api/* {\ngreen_api {\n" + edgetest.Loopback + "}\nhandle {\nreverse_proxy " + up.Address + "\n}\n}\nhandle {\nrespond 404\n}\n",
			"/green-api/webhook", "", 200,
		},
		{
			"a redirect behind", "green_api {\n" + edgetest.Loopback + "}\nrespond 302 {\nclose\n}\n",
			"/green-api/webhook", "", 502,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := len(up.Requests())
			e := edgetest.Start(t, edgetest.SiteWith("", test.site))
			response := e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+test.path, strings.NewReader(edgetest.TextMessage), "Host", test.host)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if took := len(up.Requests()) > asked; took != (test.status == 200) {
				t.Errorf("status %d, and a handler took it: %t", response.StatusCode, took)
			}
		})
	}
}

// TestEarlyData: what is sent before the handshake is over can be a replay.
func TestEarlyData(t *testing.T) {
	for _, test := range []struct {
		tls  *tls.ConnectionState
		want int
	}{
		{nil, 0},
		{&tls.ConnectionState{HandshakeComplete: true}, 0},
		{&tls.ConnectionState{}, 425},
	} {
		end := notEarly(&visit{r: &http.Request{TLS: test.tls}})
		if (end == nil) != (test.want == 0) || end != nil && (end.Status != test.want || end.Outcome != outcome.Refused) {
			t.Errorf("%+v: %+v", test.tls, end)
		}
	}
}

// TestAborted: half a body is no notification, whoever is to blame.
func TestAborted(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for _, text := range []string{
		edgetest.RawHead + "Content-Length: 1000\r\n\r\n" + edgetest.TextMessage,
		edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"typ",
		edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + edgetest.TextMessage,
	} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if strings.Contains(string(answer), " 200 ") {
			t.Errorf("answered %q", answer)
		}
		e.WantRecord("outcome", "refused", "reason", "aborted", "level", "debug")
	}
	if len(up.Requests()) != 0 {
		t.Error("a handler was asked")
	}
}

// TestPlaceholders: matchers, headers and other fleets by type work with stock directives.
func TestPlaceholders(t *testing.T) {
	states, rest := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\n@state vars {http.green_api.type} stateInstanceChanged\n"+
		"handle @state {\nreverse_proxy "+states.Address+"\n}\nhandle {\nreverse_proxy "+rest.Address+` {
			header_up X-All "{http.green_api.type} {http.green_api.message} {http.green_api.instance} {http.green_api.chat} {http.green_api.id}"
		}
	}
`))
	for _, body := range []string{edgetest.TextMessage, edgetest.StateChanged} {
		if status := e.Post(body); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if len(states.Requests()) != 1 || len(rest.Requests()) != 1 {
		t.Fatalf("asked %d and %d times, want once each", len(states.Requests()), len(rest.Requests()))
	}
	want := "incomingMessageReceived textMessage 1101000001 79001234568@c.us 3EB0C767D097B7C7C030"
	if got := rest.Requests()[0].Header.Get("X-All"); got != want {
		t.Errorf("placeholders %q, want %q", got, want)
	}
}
