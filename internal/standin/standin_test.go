package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	id    = "1101000001"
	token = "demo-api-token"
)

// vendor is a stand-in with one instance.
type vendor struct {
	*Server
	t      *testing.T
	client *http.Client
}

func newVendor(t *testing.T, options Options) *vendor {
	t.Helper()
	s := New(options)
	t.Cleanup(s.Close)
	s.Add(id, token)
	return &vendor{s, t, &http.Client{Transport: s.Transport()}}
}

// call calls the API by a path behind the instance.
func (v *vendor) call(verb, path, body string) (status int, answer string) {
	v.t.Helper()
	return v.get(verb, "/waInstance"+id+"/"+path, body)
}

func (v *vendor) get(verb, path, body string) (status int, answer string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), verb, "http://api.example.com"+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	response, err := v.client.Do(r)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, strings.TrimSpace(string(text))
}

func (v *vendor) receive() (receipt int64, body string) {
	v.t.Helper()
	status, answer := v.call("GET", "receiveNotification/"+token, "")
	var got struct {
		ReceiptID int64           `json:"receiptId"`
		Body      json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil || status != 200 {
		v.t.Fatalf("%d %s", status, answer)
	}
	return got.ReceiptID, string(got.Body)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Hour); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// set changes settings and waits until they are in force.
func (v *vendor) set(settings string) {
	v.t.Helper()
	if status, answer := v.call("POST", "setSettings/"+token, settings); status != 200 || answer != `{"saveSettings":true}` {
		v.t.Fatalf("%d %s", status, answer)
	}
	time.Sleep(v.scaled(settingsDelay))
	synctest.Wait()
	if _, answer := v.call("GET", "getStateInstance/"+token, ""); answer != `{"stateInstance":"authorized"}` {
		v.t.Fatalf("%s: %s", settings, answer)
	}
}

// TestQueue: the oldest is returned until it is deleted.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 1000})
		for i := range 3 {
			v.Notify(id, fmt.Appendf(nil, `{"n":%d}`, i))
		}
		if status, answer := v.call("GET", "getWebhooksCount/"+token, ""); status != 200 || answer != "{\"\u0441ount\":3}" {
			t.Errorf("%d %s", status, answer)
		}
		last := int64(0)
		for i := range 3 {
			receipt, body := v.receive()
			if again, same := v.receive(); again != receipt || same != body || body != fmt.Sprintf(`{"n":%d}`, i) || receipt <= last {
				t.Errorf("%d %s, then %d %s", receipt, body, again, same)
			}
			if status, answer := v.call("DELETE", fmt.Sprintf("deleteNotification/%s/%d", token, receipt+1), ""); status != 200 || !strings.Contains(answer, `"result":false`) {
				t.Errorf("one that was not received: %d %s", status, answer)
			}
			for _, want := range []string{`{"reason":"","result":true}`, `{"reason":"","result":false}`} {
				if status, answer := v.call("DELETE", fmt.Sprintf("deleteNotification/%s/%d", token, receipt), ""); status != 200 || answer != want {
					t.Errorf("%d %s, want %s", status, answer, want)
				}
			}
			last = receipt
		}
		if receipt, body := v.receive(); receipt != 0 || body != "" || v.Queued(id) != 0 || len(v.Deleted(id)) != 3 || string(v.Deleted(id)[2]) != `{"n":2}` {
			t.Errorf("at the end %d %s, %d queued, %q deleted", receipt, body, v.Queued(id), v.Deleted(id))
		}
		if v.Calls("receiveNotification") != 7 || v.Calls("deleteNotification") != 9 || v.Calls("getSettings") != 0 {
			t.Errorf("%v", v.calls)
		}
	})
}

// TestLongPoll: a call waits for a notification as long as it says, and no longer.
func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 100})
		for _, test := range []struct {
			query string
			want  time.Duration
		}{{"", 50 * time.Millisecond}, {"?receiveTimeout=20", 200 * time.Millisecond}} {
			began := time.Now()
			if status, answer := v.call("GET", "receiveNotification/"+token+test.query, ""); status != 200 || answer != "null" || time.Since(began) < test.want {
				t.Errorf("%q: %d %s in %s", test.query, status, answer, time.Since(began))
			}
		}
		slow := newVendor(t, Options{})
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				if status, answer := slow.call("GET", "receiveNotification/"+token+"?receiveTimeout=60", ""); status != 200 || !strings.Contains(answer, `"body":{}`) {
					t.Errorf("%d %s", status, answer)
				}
			})
		}
		eventually(t, "two calls", func() bool { now, _ := slow.Polling(id); return now == 2 })
		slow.Notify(id, []byte("{}"))
		calls.Wait()
		eventually(t, "no call", func() bool { now, most := slow.Polling(id); return now == 0 && most == 2 })
	})
}

// TestErrors has what is documented for what is wrong.
func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{NoLimits: true})
		for _, test := range []struct {
			verb, path, body string
			status           int
			want             string
		}{
			{"GET", "/waInstance" + id + "/getSettings/wrong", "", 401, ""},
			{"GET", "/waInstance" + id + "/getSettings", "", 400, "Parameter apiTokenInstance not define"},
			{"GET", "/waInstance" + id + "/getSettings/", "", 400, "Parameter apiTokenInstance not define"},
			{"GET", "/waInstance1101000002/getSettings/" + token, "", 403, "<center>nginx</center>"},
			{"GET", "/waInstanceabc/getSettings/" + token, "", 400, "Parameter idInstance not an integer"},
			{"GET", "/waInstance" + id + "/settings/" + token, "", 403, "403 Forbidden"},
			{"GET", "/waInstance" + id + "/getSettings/" + token + "/more", "", 403, "403 Forbidden"},
			{"GET", "/", "", 403, "403 Forbidden"},
			{"POST", "/waInstance" + id + "/getSettings/" + token, "", 404, ""},
			{"GET", "/v3/waInstance" + id + "/getSettings/" + token, "", 200, `"incomingWebhook":"no"`},
			{"DELETE", "/waInstance" + id + "/deleteNotification/" + token + "/one", "", 400, "Parameter receiptId must be a Number"},
			{"DELETE", "/waInstance" + id + "/deleteNotification/" + token, "", 400, "Parameter receiptId must be a Number"},
			{"GET", "/waInstance" + id + "/receiveNotification/" + token + "?receiveTimeout=4", "", 400, "receiveTimeout"},
			{"GET", "/waInstance" + id + "/receiveNotification/" + token + "?receiveTimeout=61", "", 400, "receiveTimeout"},
			{"POST", "/waInstance" + id + "/setSettings/" + token, `{}`, 400, "at least one setting"},
			{"POST", "/waInstance" + id + "/setSettings/" + token, `{"incomingWebhook":true}`, 400, "'incomingWebhook' is not allowed"},
			{"POST", "/waInstance" + id + "/setSettings/" + token, `{"incomingWebhok":"yes"}`, 400, "'incomingWebhok' is not allowed"},
			{"POST", "/waInstance" + id + "/setSettings/" + token, `{"webhookUrl":"hooks.example.com"}`, 400, "'webhookUrl' is not allowed"},
			{"POST", "/waInstance" + id + "/setSettings/" + token, `{"delaySendMessagesMilliseconds":5}`, 400, "is not allowed"},
			{"POST", "/waInstance" + id + "/sendMessage/" + token, `{"chatId":"79001234567@c.us"}`, 400, "'message'"},
		} {
			if status, answer := v.get(test.verb, test.path, test.body); status != test.status || !strings.Contains(answer, test.want) || test.status == 401 && answer != "" {
				t.Errorf("%s %s %s: %d %s, want %d %s", test.verb, test.path, test.body, status, answer, test.status, test.want)
			}
		}
		if v.Calls("setSettings") != 5 || v.Settings(id)["incomingWebhook"] != "no" {
			t.Errorf("%d calls, %v", v.Calls("setSettings"), v.Settings(id))
		}
	})
}

// TestLimits: what is too much for an instance is 429, and not for another.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 1000})
		v.Add("1101000002", token)
		for _, want := range []int{200, 429} {
			if status, _ := v.call("GET", "getSettings/"+token, ""); status != want {
				t.Errorf("status %d, want %d", status, want)
			}
		}
		if status, _ := v.get("GET", "/waInstance1101000002/getSettings/"+token, ""); status != 200 {
			t.Errorf("another instance: status %d", status)
		}
		if status, _ := v.call("POST", "setSettings/"+token, `{"stateWebhook":"yes"}`); status != 200 {
			t.Errorf("another method: status %d", status)
		}
		time.Sleep(time.Second)
		if status, _ := v.call("GET", "getSettings/"+token, ""); status != 200 {
			t.Errorf("a second later: status %d", status)
		}
		i := v.known(id)
		for n := range 101 {
			if got := v.allowed(i, "receiveNotification", queueRate); got != (n < 100) {
				t.Errorf("call %d: %t", n, got)
			}
		}
	})
}

// TestSettings: a change is in force after five minutes, and what it does not name is as before.
func TestSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 1000, NoLimits: true})
		began := time.Now()
		for _, body := range []string{`{"incomingWebhook":"yes","webhookUrlToken":"demo-token"}`, `{"incomingWebhook":"no","stateWebhook":"yes"}`} {
			if status, _ := v.call("POST", "setSettings/"+token, body); status != 200 {
				t.Fatalf("status %d", status)
			}
		}
		if _, answer := v.call("GET", "getStateInstance/"+token, ""); answer != `{"stateInstance":"starting"}` {
			t.Error(answer)
		}
		if _, answer := v.call("GET", "getSettings/"+token, ""); !strings.Contains(answer, `"stateWebhook":"no"`) {
			t.Error(answer)
		}
		eventually(t, "in force", func() bool { return v.Settings(id)["stateWebhook"] == "yes" })
		if took := time.Since(began); took < settingsDelay/1000 {
			t.Errorf("in force after %s", took)
		}
		if _, answer := v.call("GET", "getSettings/"+token, ""); !strings.Contains(answer, `"incomingWebhook":"no"`) ||
			!strings.Contains(answer, `"webhookUrlToken":"demo-token"`) || !strings.Contains(answer, `"outgoingWebhook":"no"`) {
			t.Error(answer)
		}
	})
}

// TestFault: a call meets what it is told to, and counts.
func TestFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{NoLimits: true})
		for _, test := range []struct {
			fault  *Fault
			status int
			want   string
		}{
			{nil, 200, "wid"},
			{&Fault{Status: 466, Body: `{"message":"quota"}`}, 466, `{"message":"quota"}`},
			{&Fault{Drop: true}, 0, ""},
			{&Fault{Delay: time.Millisecond}, 200, "wid"},
		} {
			v.Fault(func(method, instance string) *Fault {
				if method != "getSettings" || instance != id {
					t.Errorf("%s of %s", method, instance)
				}
				return test.fault
			})
			if status, answer := v.call("GET", "getSettings/"+token, ""); status != test.status || !strings.Contains(answer, test.want) {
				t.Errorf("%+v: %d %s", test.fault, status, answer)
			}
		}
		v.Fault(func(string, string) *Fault { return &Fault{Status: 429, RetryAfter: "7"} })
		response, err := v.client.Get("http://api.example.com/waInstance" + id + "/getSettings/" + token)
		if err != nil || response.StatusCode != 429 || response.Header.Get("Retry-After") != "7" {
			t.Errorf("%v %v", response, err)
		}
		response.Body.Close()
		v.Fault(nil)
		if status, _ := v.call("GET", "getSettings/"+token, ""); status != 200 || v.Calls("getSettings") < 6 {
			t.Errorf("status %d, %d calls", status, v.Calls("getSettings"))
		}
	})
}

func TestSendMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{})
		status, answer := v.call("POST", "sendMessage/"+token, `{"chatId":"79001234567@c.us","message":"a canary sings"}`)
		got := v.Messages()
		if status != 200 || len(got) != 1 || got[0].Chat != "79001234567@c.us" || got[0].Text != "a canary sings" || got[0].Instance != id ||
			answer != `{"idMessage":"`+got[0].ID+`"}` {
			t.Errorf("%d %s, %+v", status, answer, got)
		}
	})
}

// webhook remembers the bodies and the tokens that come, and answers with what status says.
type webhook struct {
	http.RoundTripper
	status atomic.Int64
	mu     sync.Mutex
	got    []string
	tokens []string
}

func newWebhook() *webhook {
	h := new(webhook)
	h.status.Store(200)
	h.RoundTripper = Direct(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.got, h.tokens = append(h.got, string(body)), append(h.tokens, r.Header.Get("Authorization"))
		h.mu.Unlock()
		w.WriteHeader(int(h.status.Load()))
	}))
	return h
}

const hookURL = "https://hooks.example.com/green-api/webhook"

func (h *webhook) bodies() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// TestWebhook: with a webhookUrl the queue goes there, the same notification until it is answered
// 200, and cannot be received; without one it can again.
func TestWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := newWebhook()
		v := newVendor(t, Options{Scale: 3000, NoLimits: true, Webhooks: hook})
		hook.status.Store(503)
		v.Notify(id, []byte("1"))
		v.Notify(id, []byte("2"))
		v.set(`{"webhookUrl":"` + hookURL + `","webhookUrlToken":"demo-token"}`)
		eventually(t, "sent again", func() bool { return len(hook.bodies()) > 2 })
		if status, answer := v.call("GET", "receiveNotification/"+token, ""); status != 400 || !strings.Contains(answer, "Message cannot be received because custom webhook url is set") {
			t.Errorf("%d %s", status, answer)
		}
		if v.Queued(id) != 2 {
			t.Errorf("%d queued", v.Queued(id))
		}
		hook.status.Store(200)
		eventually(t, "empty queue", func() bool { return v.Queued(id) == 0 })
		v.Notify(id, []byte("3"))
		eventually(t, "empty queue again", func() bool { return v.Queued(id) == 0 })
		if got := slices.Compact(hook.bodies()); !slices.Equal(got, []string{"1", "2", "3"}) || hook.tokens[0] != "Bearer demo-token" {
			t.Errorf("got %q with %q", got, hook.tokens)
		}
		v.set(`{"webhookUrl":""}`)
		v.Notify(id, []byte("4"))
		if _, body := v.receive(); body != "4" || len(v.Deleted(id)) != 3 {
			t.Errorf("received %s, deleted %q", body, v.Deleted(id))
		}
	})
}

// TestWebhookInHand: what is on its way to a webhook when its URL is cleared is not received until
// that is over, and then only if it is still there.
func TestWebhookInHand(t *testing.T) {
	const scale = 100
	for status, want := range map[int]string{200: "2", 503: "1"} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var held atomic.Bool
				var holdFrom atomic.Int64 // an attempt that is on its way when the URL is cleared
				answer := make(chan int)
				hook := Direct(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if from := holdFrom.Load(); from == 0 || time.Now().UnixNano() < from {
						w.WriteHeader(503)
						return
					}
					held.Store(true)
					w.WriteHeader(<-answer)
				}))
				v := newVendor(t, Options{Scale: scale, NoLimits: true, Webhooks: hook})
				v.Notify(id, []byte("1"))
				v.Notify(id, []byte("2"))
				v.set(`{"webhookUrl":"` + hookURL + `"}`)
				holdFrom.Store(time.Now().Add(settingsDelay * 2 / 3 / scale).UnixNano())
				v.set(`{"webhookUrl":""}`)
				if !held.Load() {
					t.Fatal("nothing is on its way")
				}
				if _, body := v.receive(); body != "" {
					t.Errorf("received %q while it is on its way", body)
				}
				answer <- status
				if _, body := v.receive(); body != want {
					t.Errorf("received %q, want %q", body, want)
				}
			})
		})
	}
}

// byHost calls the webhook of each host.
type byHost map[string]http.RoundTripper

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) { return b[r.URL.Host].RoundTrip(r) }

// TestOtherURL: a new URL gets what the old one did not take, in order.
func TestOtherURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 3000, NoLimits: true})
		first, second := newWebhook(), newWebhook()
		v.options.Webhooks = byHost{"first.example.com": first, "second.example.com": second}
		for i := range 50 {
			v.Notify(id, fmt.Append(nil, i))
		}
		v.set(`{"webhookUrl":"http://first.example.com/"}`)
		eventually(t, "one is sent", func() bool { return len(first.bodies()) > 0 })
		first.status.Store(500)
		v.set(`{"webhookUrl":"http://second.example.com/"}`)
		eventually(t, "empty queue", func() bool { return v.Queued(id) == 0 })
		for n, body := range v.Deleted(id) {
			if string(body) != fmt.Sprint(n) {
				t.Fatalf("out of order: %q", v.Deleted(id))
			}
		}
	})
}

// TestPollThenURL: a call that waits when a webhookUrl comes into force is told so.
func TestPollThenURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Webhooks: newWebhook()})
		if status, _ := v.call("POST", "setSettings/"+token, `{"webhookUrl":"`+hookURL+`"}`); status != 200 {
			t.Fatalf("status %d", status)
		}
		time.Sleep(settingsDelay - 30*time.Second)
		began := time.Now()
		if status, _ := v.call("GET", "receiveNotification/"+token+"?receiveTimeout=60", ""); status != 400 || time.Since(began) != 30*time.Second {
			t.Errorf("status %d after %s", status, time.Since(began))
		}
	})
}

// TestClose: nothing is sent after it, and nobody waits.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVendor(t, Options{Scale: 10})
		done := make(chan struct{})
		go func() {
			v.call("GET", "receiveNotification/"+token+"?receiveTimeout=60", "")
			close(done)
		}()
		eventually(t, "polling", func() bool { now, _ := v.Polling(id); return now == 1 })
		began := time.Now()
		v.Close()
		<-done
		if took := time.Since(began); took > 0 {
			t.Errorf("the call waits for %s", took)
		}
	})
}
