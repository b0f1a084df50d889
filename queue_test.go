package greenapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestNoRoom: what finds no room in time is left with its sender, and what nobody waits for is not stored.
// test/queue has what happens when there is room in time.
func TestNoRoom(t *testing.T) {
	for _, test := range []struct {
		name, global, block string
		body                string
		want                reason.Reason
	}{
		{"of the instance", "", "max_per_instance 1", "{}", reason.InstanceFull},
		{"at all", "queue {\nmax_size 1MiB\n}", "", strings.Repeat("x", 600_000), reason.QueueFull},
	} {
		t.Run(test.name, func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			handler := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-over })
			config := edgetest.Site(edgetest.Loopback + "queue {\n" + test.block + "\n}\nreverse_proxy " + handler.Address)
			edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine DIR\n"+test.global, 1))
			h := activeApp().blocks[defaultName].handler
			put := func(sender context.Context, waited time.Duration) *outcome.Verdict {
				c := outcome.Case{Started: time.Now().Add(-waited), Body: []byte(test.body), N: &notification.Notification{Type: "incomingCall", Instance: "1101000001"}}
				return h.put(sender, &c)
			}
			if end := put(t.Context(), 0); end.Outcome != outcome.Queued || end.Status != http.StatusOK {
				t.Fatalf("%+v", end)
			}
			if end := put(t.Context(), roomTimeout); end.Outcome != outcome.Failed || end.Reason != test.want || end.Status != http.StatusServiceUnavailable || end.Level.String() != "error" {
				t.Errorf("%+v", end)
			}
			gone, hangUp := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, hangUp)
			if end := put(gone, 0); end.Outcome != outcome.Failed || end.Reason != test.want {
				t.Errorf("after its sender has hung up: %+v", end)
			}
			if n := h.app.queueStatus().Entries; n != 1 {
				t.Errorf("%d in the queue, want 1", n)
			}
		})
	}
}

// TestQueueGrace: the process waits for the longest attempt that a queue allows, but not longer than grace_period.
func TestQueueGrace(t *testing.T) {
	for _, test := range []struct {
		global, block string
		want          time.Duration
	}{
		{"", "reverse_proxy 127.0.0.1:9", 180 * time.Second},
		{"", "queue\nreverse_proxy 127.0.0.1:9", 310 * time.Second},
		{"", "queue\ndeliver {\nattempt_timeout 20m\n}\nreverse_proxy 127.0.0.1:9", 20*time.Minute + 10*time.Second},
		{"grace_period 60s", "queue\nreverse_proxy 127.0.0.1:9", time.Minute},
	} {
		edgetest.Start(t, edgetest.Global(test.global+"\n", edgetest.Site(edgetest.Loopback+test.block)))
		if got := activeApp().queueGrace(); got != test.want {
			t.Errorf("%s %q: %s, want %s", test.global, test.block, got, test.want)
		}
	}
}

// TestShortestMaxAge: the clock is watched as closely as the shortest max_age needs it.
func TestShortestMaxAge(t *testing.T) {
	for _, test := range []struct {
		block string
		want  time.Duration
	}{
		{"reverse_proxy 127.0.0.1:9", 24 * time.Hour},
		{"queue {\nmax_age 3h\n}\nreverse_proxy 127.0.0.1:9", 3 * time.Hour},
		{"queue {\nmax_age 10s\n}\nreverse_proxy 127.0.0.1:9", 20 * time.Minute},
		{"queue {\nmax_age off\n}\nreverse_proxy 127.0.0.1:9", 24 * time.Hour},
	} {
		edgetest.Start(t, edgetest.Site(edgetest.Loopback+test.block))
		if got := activeApp().shortestMaxAge(); got != test.want {
			t.Errorf("%q: %s, want %s", test.block, got, test.want)
		}
	}
}

func init() { caddy.RegisterModule(lateConfig{}) }

// lateConfig posts notifications, to which nobody listens to the answers, and loads no config.
type lateConfig struct {
	URL string `json:"url"`
}

func (lateConfig) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.config_loaders.test_posts", New: func() caddy.Module { return new(lateConfig) }}
}

const lateNotifications = 20

func (c lateConfig) LoadConfig(caddy.Context) ([]byte, error) {
	for n := range lateNotifications {
		r, err := http.NewRequest(http.MethodPost, c.URL, strings.NewReader(queuedCall(n)))
		if err != nil {
			return nil, err
		}
		r.Close = true
		r.Header.Set("Authorization", "Bearer "+edgetest.Token)
		r.Header.Set("Content-Type", notification.ContentType)
		go func() {
			if answer, err := http.DefaultClient.Do(r); err == nil {
				_ = answer.Body.Close()
			}
		}()
	}
	time.Sleep(300 * time.Millisecond)
	return nil, errors.New("no config")
}

func queuedCall(n int) string {
	return fmt.Sprintf(`{"typeWebhook":"incomingCall","instanceData":{"idInstance":%d,"wid":"79990000001@c.us","typeInstance":"whatsapp"},`+
		`"timestamp":1795700000,"idMessage":"C","from":"79990000011@c.us","status":"offer"}`, 1101000001+n)
}

// TestQueueLateFailure: what is in the queue goes on to the handlers of the config that stays in effect when another
// one fails after its apps have started, also if only that one had a queue.
func TestQueueLateFailure(t *testing.T) {
	for name, options := range map[string]string{"with a queue before": "queue {\nretry 100ms\n}\n", "without one": ""} {
		t.Run(name, func(t *testing.T) {
			good, bad := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 503, nil)
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+options+"reverse_proxy "+good.Address))
			fails := edgetest.Site(edgetest.Loopback + "queue {\nretry 100ms\n}\nreverse_proxy " + bad.Address)
			text, err := edgetest.Adapt(strings.NewReplacer("PORT", e.Port, "DIR", e.Dir, "TOKEN", edgetest.Token).Replace(fails))
			if err != nil {
				t.Fatal(err)
			}
			var config map[string]any
			if err := json.Unmarshal(text, &config); err != nil {
				t.Fatal(err)
			}
			config["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false, "load": map[string]any{"module": "test_posts", "url": e.URL}}}
			if text, err = json.Marshal(config); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Load(text, true); err == nil {
				t.Fatal("loads")
			}
			edgetest.Eventually(t, "the handler of the config in effect to have all", func() bool { return len(good.Requests()) == lateNotifications })
			if len(bad.Requests()) == 0 {
				t.Error("the other config has got none")
			}
		})
	}
}
