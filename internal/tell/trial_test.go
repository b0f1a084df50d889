package tell

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestTry: each endpoint gets one test alert at once, whatever else is to be told, and it changes nothing of that.
func TestTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.answers["ill"] = func(int, *http.Request) int { return http.StatusNotFound }
		w.answers["slow"] = func(_ int, r *http.Request) int { <-r.Context().Done(); return 0 }
		w.answers["tardy"] = w.answers["slow"]
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		defer d.Close()
		if got := d.Try(t.Context(), time.Now()); len(got) != 0 {
			t.Errorf("without an endpoint: %v", got)
		}
		d.Configure([]Endpoint{endpoint(t, "well"), endpoint(t, "ill"), endpoint(t, "gone"), endpoint(t, "slow"), endpoint(t, "tardy"), endpoint(t, "other")}, zap.NewNop())
		d.Tell(note(reason.Schema, "1101000001"))
		var got []string
		for _, trial := range d.Try(t.Context(), time.Now()) {
			got = append(got, fmt.Sprintf("%s %v", trial.Host, trial.Err))
		}
		want := []string{"well <nil>", "ill answer 404", "gone connection refused by {env.HOST}", "slow context deadline exceeded", "tardy context deadline exceeded", "other <nil>"}
		for i := range want {
			if i >= len(got) || !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("got %q, want %q", got, want)
				break
			}
		}
		if took := time.Since(w.began); took != alertTimeout {
			t.Errorf("took %s", took)
		}
		wantAll(t, w.all("well"), `0s "test 1 "`, `2s "schema 1 1101000001"`)

		// Nobody waits for an endpoint once the one who asked has gone. A second one is sent within `every`.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Try(ctx, time.Now())[3].Err; err == nil || time.Since(w.began) != alertTimeout+time.Second {
			t.Errorf("%v after %s", err, time.Since(w.began))
		}
		wantAll(t, w.all("well"), `0s "test 1 "`, `2s "schema 1 1101000001"`, `10s "test 1 "`)
	})
}

// TestTrialText: a test alert says that it is one.
func TestTrialText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		body, err := NewBody(DefaultBody, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		to := endpoint(t, "well")
		to.Body = body
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		defer d.Close()
		d.Configure([]Endpoint{to}, zap.NewNop())
		d.Try(t.Context(), time.Now())
		for _, part := range []string{": this is a test of the alerts, nothing is wrong (test), once at ", " It was sent by 'caddy green-api alert test'.", `"reason":"test","type":"none","level":"warn","count":1,`} {
			if got := strings.Join(w.all("well"), ""); !strings.Contains(got, part) {
				t.Errorf("lacks %q: %s", part, got)
			}
		}
	})
}
