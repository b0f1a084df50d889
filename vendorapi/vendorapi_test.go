package vendorapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

const (
	testInstance = "1101000001"
	testToken    = "demo/api token%2F" // escaped in the URL
)

// newVendor is a stand-in of the vendor with one instance, and a client of it.
func newVendor(t *testing.T, options standin.Options) (*standin.Server, *Client) {
	t.Helper()
	vendor := standin.New(options)
	server := httptest.NewServer(vendor)
	t.Cleanup(func() { vendor.Close(); server.Close() })
	vendor.Add(testInstance, "demo-api-token")
	return vendor, &Client{URL: server.URL + "/", Instance: testInstance, Token: "demo-api-token"}
}

// answering is a client of a server that answers with that.
func answering(t *testing.T, status int, header, body string) *Client {
	t.Helper()
	return handledBy(t, func(w http.ResponseWriter, _ *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func handledBy(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return &Client{URL: server.URL, Instance: testInstance, Token: testToken}
}

// TestQueue takes notifications off the vendor's queue.
func TestQueue(t *testing.T) {
	vendor, c := newVendor(t, standin.Options{Scale: 1000})
	ctx := t.Context()
	if got, err := c.ReceiveNotification(ctx, 0); got != nil || err != nil {
		t.Errorf("empty queue: %+v, %v", got, err)
	}
	bodies := []string{`{"typeWebhook" : "один", "n": 1.0}`, `{"broken": "a "quote""}`}
	for _, body := range bodies {
		vendor.Notify(testInstance, []byte(body))
	}
	if n, err := c.GetWebhooksCount(ctx); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, body := range bodies {
		got, err := c.ReceiveNotification(ctx, time.Hour) // beyond what may be
		if err != nil || string(got.Body) != body {
			t.Fatalf("%+v, %v; want %s", got, err, body)
		}
		for _, want := range []bool{true, false} {
			if there, err := c.DeleteNotification(ctx, got.ReceiptID); there != want || err != nil {
				t.Errorf("deleted %t, %v; want %t", there, err, want)
			}
		}
	}
	if vendor.Queued(testInstance) != 0 {
		t.Error("something is left")
	}
}

func TestSettings(t *testing.T) {
	vendor, c := newVendor(t, standin.Options{Scale: 1000, NoLimits: true})
	ctx := t.Context()
	before, err := c.GetSettings(ctx)
	if err != nil || before.Text(WebhookURL) != "" || before.Text("delaySendMessagesMilliseconds") != "500" {
		t.Fatalf("%v, %v", before, err)
	}
	if switches := before.Switches(); len(switches) != 15 || !slices.IsSorted(switches) || !slices.Contains(switches, "catalogWebhook") {
		t.Errorf("%q", switches)
	}
	wanted := Settings{"incomingWebhook": "yes", "delaySendMessagesMilliseconds": 600}
	if err := c.SetSettings(ctx, wanted); err != nil {
		t.Fatal(err)
	}
	if state, err := c.GetStateInstance(ctx); state != "starting" || err != nil {
		t.Errorf("%q, %v", state, err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := c.GetSettings(ctx)
		if err != nil || time.Now().After(end) {
			t.Fatalf("%v, %v", now, err)
		}
		if differing := now.Differing(wanted); len(differing) == 0 {
			break
		} else if !slices.Equal(differing, []string{"delaySendMessagesMilliseconds", "incomingWebhook"}) {
			t.Fatalf("differing: %q", differing)
		}
	}
	if vendor.Settings(testInstance)["outgoingWebhook"] != "no" {
		t.Error("more is changed than was asked for")
	}
	if state, err := c.GetStateInstance(ctx); state != "authorized" || err != nil {
		t.Errorf("%q, %v", state, err)
	}
}

func TestSettingsText(t *testing.T) {
	s := Settings{"text": "x", "nothing": nil, "list": []any{"a", true}, "flag": true}
	for name, want := range map[string]string{"text": "x", "nothing": "", "missing": "", "list": `["a",true]`, "flag": "true"} {
		if got := s.Text(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := s.Differing(Settings{"text": "x", "missing": "", "flag": false}); !slices.Equal(got, []string{"flag", "missing"}) {
		t.Errorf("%q", got)
	}
}

func TestSendMessage(t *testing.T) {
	vendor, c := newVendor(t, standin.Options{})
	id, err := c.SendMessage(t.Context(), "79001234567@c.us", "a canary <sings> & \"more\"")
	got := vendor.Messages()
	if err != nil || len(got) != 1 || got[0].ID != id || got[0].Chat != "79001234567@c.us" || got[0].Text != "a canary <sings> & \"more\"" {
		t.Errorf("%q, %v, %+v", id, err, got)
	}
}

// calls are all methods of a client.
var calls = map[string]func(ctx context.Context, c *Client) error{
	"receiveNotification": func(ctx context.Context, c *Client) error { _, err := c.ReceiveNotification(ctx, MinWait); return err },
	"deleteNotification":  func(ctx context.Context, c *Client) error { _, err := c.DeleteNotification(ctx, 1); return err },
	"getSettings":         func(ctx context.Context, c *Client) error { _, err := c.GetSettings(ctx); return err },
	"setSettings": func(ctx context.Context, c *Client) error {
		return c.SetSettings(ctx, Settings{"stateWebhook": "yes"})
	},
	"getStateInstance": func(ctx context.Context, c *Client) error { _, err := c.GetStateInstance(ctx); return err },
	"getWebhooksCount": func(ctx context.Context, c *Client) error { _, err := c.GetWebhooksCount(ctx); return err },
	"sendMessage": func(ctx context.Context, c *Client) error {
		_, err := c.SendMessage(ctx, "79001234567@c.us", "a canary sings")
		return err
	},
}

var kinds = []error{ErrWebhookURLSet, ErrInvalid, ErrUnauthorized, ErrForbidden, ErrTooManyRequests, ErrQuota, ErrUnavailable}

// wantError fails the test unless err is of that kind alone, of that method, and without the token.
func wantError(t *testing.T, err, kind error, method string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, other := range kinds {
		if errors.Is(err, other) != (other == kind) { //nolint:errorlint // the very same
			t.Errorf("errors.Is(%v, %v): %t", err, other, errors.Is(err, other))
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.Method != method || !strings.HasPrefix(err.Error(), method+": ") || strings.HasPrefix(err.Error(), method+":  ") {
		t.Errorf("%v is not of %s", err, method)
	}
	wantNoToken(t, err)
}

// wantNoToken fails the test if the token, or a URL, is in an error or in what it wraps.
func wantNoToken(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err)} {
			for _, secret := range []string{testToken, "demo%2Fapi", "api token", "demo-api-token", "/waInstance", "http://127"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q has %q in it", text, secret)
				}
			}
		}
	}
}

// TestErrors: each status is the error that is documented, for each method.
func TestErrors(t *testing.T) {
	const urlSet = `{"statusCode":400,"path":"/waInstance1101000001/receiveNotification/x","message":"Message cannot be received because custom webhook url is set"}`
	for _, test := range []struct {
		status int
		body   string
		kind   error
		want   string // behind the method
	}{
		{400, urlSet, ErrWebhookURLSet, "a webhookUrl is set for the instance: Message cannot be received because custom webhook url is set (status 400)"},
		{400, "Parameter receiptId must be a Number", ErrInvalid, "the API does not take the request: Parameter receiptId must be a Number (status 400)"},
		{401, "", ErrUnauthorized, "the API does not take the token (status 401)"},
		{403, "<html>403 Forbidden</html>", ErrForbidden, "the API does not know the instance at this address (status 403)"},
		{404, "\n<html>", ErrForbidden, "the API does not know the instance at this address (status 404)"},
		{429, "Too many requests", ErrTooManyRequests, "too many requests: Too many requests (status 429)"},
		{466, `{"message":""}`, ErrQuota, `the quota of the instance's tariff is used up: {"message":""} (status 466)`},
		{469, "", ErrQuota, "the quota of the instance's tariff is used up (status 469)"},
		{500, "\xff", ErrUnavailable, "the API is not available: \uFFFD (status 500)"},
		{502, "<html>", ErrUnavailable, "the API is not available (status 502)"},
		{418, "I'm a teapot", nil, "I'm a teapot (status 418)"},
		{204, "", nil, "the API does not answer as documented (status 204)"},
		{500, strings.Repeat("é", 5000), ErrUnavailable, "the API is not available: " + strings.Repeat("é", 100) + "… (status 500)"},
	} {
		c := answering(t, test.status, "", test.body)
		for method, call := range calls {
			err := call(t.Context(), c)
			wantError(t, err, test.kind, method)
			if want := method + ": " + test.want; err != nil && err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		}
	}
}

// TestVendorErrors: what the stand-in says is understood.
func TestVendorErrors(t *testing.T) {
	vendor, c := newVendor(t, standin.Options{Scale: 1000, NoLimits: true})
	for _, test := range []struct {
		name   string
		client Client
		kind   error
	}{
		{"token", Client{Instance: testInstance, Token: testToken}, ErrUnauthorized},
		{"no token", Client{Instance: testInstance}, ErrInvalid},
		{"instance", Client{Instance: "1101000002", Token: testToken}, ErrForbidden},
		{"no number", Client{Instance: "abc", Token: testToken}, ErrInvalid},
	} {
		test.client.URL = c.URL
		for method, call := range calls {
			if method == "deleteNotification" && test.client.Token == "" {
				continue // the receiptId stands in the token's place
			}
			wantError(t, call(t.Context(), &test.client), test.kind, method)
		}
	}
	hook := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(hook.Close)
	if err := c.SetSettings(t.Context(), Settings{WebhookURL: hook.URL}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); vendor.Settings(testInstance)[WebhookURL] == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the settings do not come into force")
		}
	}
	wantError(t, calls["receiveNotification"](t.Context(), c), ErrWebhookURLSet, "receiveNotification")
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"Retry-After: 7": 7 * time.Second, "Retry-After: -7": 0, "Retry-After: soon": 0, "Retry-After: 99999999999": 24 * time.Hour, "": 0,
		"Retry-After: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):       time.Hour,
		"Retry-After: " + time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):      0,
		"Retry-After: " + time.Now().Add(1000*time.Hour).UTC().Format(http.TimeFormat):  24 * time.Hour,
		"Retry-After: " + "9999999999999999999999999999999999999999999999999999999999 ": 0,
	} {
		var e *Error
		err := calls["getSettings"](t.Context(), answering(t, 429, header, ""))
		if !errors.As(err, &e) || e.RetryAfter > want || e.RetryAfter < want-time.Minute {
			t.Errorf("%q: %v, want %s", header, e, want)
		}
	}
}

// TestReceived has the forms of an answer with a notification, or without.
func TestReceived(t *testing.T) {
	for _, test := range []struct {
		answer string
		id     int64
		body   string // "-": none
	}{
		{"null", 0, "-"},
		{"", 0, "-"},
		{" \r\n", 0, "-"},
		{" null\n", 0, "-"},
		{`{"receiptId":1234567,"body":{"a" : 1}}`, 1234567, `{"a" : 1}`},
		{`{"body":{"a":1},"receiptId":9223372036854775807}`, 9223372036854775807, `{"a":1}`},
		{`{"receiptId":9007199254740993,"body":{},"more":1}`, 9007199254740993, `{}`},
		{`{"receiptId":0,"body":null}`, 0, `null`},
		{`{"receiptId":1,"body":"text"}`, 1, `"text"`},
		{`{"receiptId":1,"body":{"a":"a "quote""}}`, 1, `{"a":"a "quote""}`},
		{"\n{ \"receiptId\" : 1 , \"body\" : {\"a\":\n\"\n\"} }\n", 1, "{\"a\":\n\"\n\"}"},
		{`{"body":{"a":"a "quote""}, "receiptId":12}`, 12, `{"a":"a "quote""}`},
		{`{"receiptId":1,"body":}`, 1, ``},
		{`{"receiptId":1,"body":{"idInstance":000001}}`, 1, `{"idInstance":000001}`},
		{"{\"receiptId\":1,\"body\":{\"a\":\"\xff\"}}", 1, "{\"a\":\"\xff\"}"},
		{`{"receiptId":1,"body":` + strings.Repeat("[", 20000) + `}`, 1, strings.Repeat("[", 20000)},
	} {
		got, err := answering(t, 200, "", test.answer).ReceiveNotification(t.Context(), MinWait)
		switch {
		case err != nil:
			t.Errorf("%.100q: %v", test.answer, err)
		case test.body == "-":
			if got != nil {
				t.Errorf("%.100q: %+v, want none", test.answer, got)
			}
		case got == nil || got.ReceiptID != test.id || string(got.Body) != test.body:
			t.Errorf("%.100q: %+v, want %d and %.100s", test.answer, got, test.id, test.body)
		}
	}
	for _, answer := range []string{
		"[]", "{}", "5", `{"receiptId":1}`, `{"body":{}}`, `{"receiptId":"one","body":{}}`, `{"receiptId":1.5,"body":{}}`,
		`{"receiptId":99999999999999999999,"body":{}}`, `{"receiptId":1,"body":{`, "<html>",
	} {
		got, err := answering(t, 200, "", answer).ReceiveNotification(t.Context(), MinWait)
		if got != nil {
			t.Errorf("%q: %+v", answer, got)
		}
		wantError(t, err, nil, "receiveNotification")
	}
}

// TestWait: receiveTimeout is in whole seconds, and within the vendor's bounds.
func TestWait(t *testing.T) {
	var query atomic.Value
	c := handledBy(t, func(_ http.ResponseWriter, r *http.Request) { query.Store(r.URL.RawQuery) })
	for wait, want := range map[time.Duration]string{0: "5", time.Second: "5", 20 * time.Second: "20", 20500 * time.Millisecond: "20", time.Hour: "60"} {
		if _, err := c.ReceiveNotification(t.Context(), wait); err != nil || query.Load() != "receiveTimeout="+want {
			t.Errorf("%s: %v, %v", wait, query.Load(), err)
		}
	}
}

// TestAnswers: what is not as documented is no success.
func TestAnswers(t *testing.T) {
	for method, answers := range map[string][]string{
		"deleteNotification": {"", "[]", "<html>"},
		"getSettings":        {"", "null", "[]", "<html>"},
		"setSettings":        {"", "null", "{}", `{"saveSettings":false}`, `{"saveSettings":"true"}`},
		"getStateInstance":   {"", "[]", `{"stateInstance":5}`},
		"getWebhooksCount":   {"", "null", "{}", `{"count":"5"}`},
		"sendMessage":        {"", "[]"},
	} {
		for _, answer := range answers {
			wantError(t, calls[method](t.Context(), answering(t, 200, "", answer)), nil, method)
		}
	}
	for _, key := range []string{"count", "\u0441ount"} {
		if n, err := answering(t, 200, "", `{"`+key+`":7}`).GetWebhooksCount(t.Context()); n != 7 || err != nil {
			t.Errorf("%s: %d, %v", key, n, err)
		}
	}
	c := handledBy(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, maxAnswer+1) })
	wantError(t, calls["getSettings"](t.Context(), c), nil, "getSettings")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestRequests: each method is called as documented, with the token escaped.
func TestRequests(t *testing.T) {
	for method, want := range map[string]string{
		"receiveNotification": "GET /v3/waInstance1101000001/receiveNotification/demo%2Fapi%20token%252F?receiveTimeout=5 ",
		"deleteNotification":  "DELETE /v3/waInstance1101000001/deleteNotification/demo%2Fapi%20token%252F/1 ",
		"getSettings":         "GET /v3/waInstance1101000001/getSettings/demo%2Fapi%20token%252F ",
		"setSettings":         `POST /v3/waInstance1101000001/setSettings/demo%2Fapi%20token%252F {"stateWebhook":"yes"}application/json`,
		"getStateInstance":    "GET /v3/waInstance1101000001/getStateInstance/demo%2Fapi%20token%252F ",
		"getWebhooksCount":    "GET /v3/waInstance1101000001/getWebhooksCount/demo%2Fapi%20token%252F ",
		"sendMessage":         `POST /v3/waInstance1101000001/sendMessage/demo%2Fapi%20token%252F {"chatId":"79001234567@c.us","message":"a canary sings"}application/json`,
	} {
		var got atomic.Value
		c := handledBy(t, func(_ http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got.Store(r.Method + " " + r.RequestURI + " " + string(body) + r.Header.Get("Content-Type"))
		})
		c.URL += "/v3/"
		_ = calls[method](t.Context(), c) // the empty answer is another test's
		if got.Load() != want {
			t.Errorf("got %v\nwant %s", got.Load(), want)
		}
	}
}

// TestNoToken: whatever goes wrong, the token is in no error.
func TestNoToken(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	echo := func(status int, before string) *Client {
		return handledBy(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, before+r.RequestURI[len("/waInstance1101000001"):]+" "+r.URL.Path[len("/waInstance1101000001"):]+" "+testToken)
		})
	}
	for name, test := range map[string]struct {
		client *Client
		kind   error
	}{
		"refused":       {&Client{URL: gone.URL}, ErrUnavailable},
		"no such host":  {&Client{URL: "http://api.invalid"}, ErrUnavailable},
		"no address":    {&Client{URL: "http://api .example.com"}, nil},
		"no scheme":     {&Client{URL: "api.example.com"}, nil},
		"other scheme":  {&Client{URL: "ftp://api.example.com"}, nil},
		"no host":       {&Client{URL: "https://"}, nil},
		"control":       {&Client{URL: "http://127.0.0.1\x00"}, nil},
		"hangs up":      {handledBy(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), ErrUnavailable},
		"breaks off":    {answering(t, 200, "Content-Length: 100", "x"), ErrUnavailable},
		"no HTTP":       {handledBy(t, noHTTP), ErrUnavailable},
		"echo in a 400": {echo(400, "no "), ErrInvalid},
		"echo in a 500": {echo(500, strings.Repeat("-", 190)), ErrUnavailable}, // in the way of the clipping
		"redirect": {handledBy(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://other.invalid"+r.RequestURI, http.StatusFound)
		}), nil},
		"broken redirect": {handledBy(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[other"+r.RequestURI[len("/waInstance"):])
			w.WriteHeader(http.StatusFound)
		}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			test.client.Instance, test.client.Token = testInstance, testToken
			for method, call := range calls {
				err := call(t.Context(), test.client)
				if name == "no HTTP" || name == "broken redirect" { // says what the server said
					if err == nil {
						t.Errorf("%s: no error", method)
					}
					wantNoToken(t, err)
					continue
				}
				wantError(t, err, test.kind, method)
			}
		})
	}
}

// noHTTP answers with the request's own URL in place of HTTP.
func noHTTP(w http.ResponseWriter, r *http.Request) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	fmt.Fprintf(connection, "%s %s\r\n\r\n", r.RequestURI[len("/waInstance"):], testToken)
}

// TestRedirect: none is followed, as it would take the token elsewhere.
func TestRedirect(t *testing.T) {
	var came atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came.Add(1) }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for method, call := range calls {
			wantError(t, call(t.Context(), answering(t, status, "Location: "+elsewhere.URL, "")), nil, method)
		}
	}
	if came.Load() != 0 {
		t.Errorf("%d came elsewhere", came.Load())
	}
}

// TestCancel: a call ends when its context does, and at its time limit.
func TestCancel(t *testing.T) {
	block := make(chan struct{})
	c := handledBy(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-block:
		}
	})
	t.Cleanup(func() { close(block) })
	for method, call := range calls {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		err := call(ctx, c)
		wantError(t, err, ErrUnavailable, method)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
	}
	c.Timeout = 10 * time.Millisecond
	err := calls["getSettings"](t.Context(), c)
	wantError(t, err, ErrUnavailable, "getSettings")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = calls["receiveNotification"](ctx, c)
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < 40*time.Millisecond {
		t.Errorf("%v after %s: the wait is not added to the time limit", err, took)
	}
}

// FuzzReceived: an answer of receiveNotification is understood or an error, and what is taken out of
// it stands in it.
func FuzzReceived(f *testing.F) {
	for _, seed := range []string{
		"", "null", `{"receiptId":1,"body":{}}`, `{"body":{"a":1},"receiptId":12}`, `{"receiptId":1,"body":{"a":"a "quote""}}`,
		`{"body":{"a":"a "quote""},"receiptId":1}`, `{"receiptId":999999999999999999999,"body":{}}`, `{"receiptId":1,"body":`, "<html>",
		`{"receiptId":1,"receiptId":2,"body":{}}`, `{"receiptId":1,"body":}`, "{\"receiptId\":1,\"body\":\xff}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		copied := string(answer)
		got, err := received(answer)
		switch {
		case string(answer) != copied:
			t.Error("the answer was changed")
		case err != nil:
			var e *Error
			if got != nil || !errors.As(err, &e) {
				t.Errorf("%+v, %v", got, err)
			}
		case got == nil:
			if text := strings.TrimSpace(copied); text != "" && text != "null" {
				t.Errorf("%q is no empty queue", answer)
			}
		case !strings.Contains(copied, string(got.Body)):
			t.Errorf("body %q", got.Body)
		}
	})
}
