package tell

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// world is where alerts arrive in a test, by host: hosts without an answer are gone.
type world struct {
	began   time.Time
	answers map[string]func(n int, r *http.Request) int // to the nth alert, from 1

	mu  sync.Mutex
	got map[string][]string // "when body"
}

// RoundTrip answers an alert.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := w.answers[r.URL.Host]
	if answer == nil {
		return nil, errors.New("connection refused by SECRET")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.got[r.URL.Host] = append(w.got[r.URL.Host], fmt.Sprintf("%s %s", time.Since(w.began), body))
	n := len(w.got[r.URL.Host])
	w.mu.Unlock()
	status := answer(n, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
}

func (w *world) all(host string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got[host])
}

func takes(int, *http.Request) int { return http.StatusOK }

func newWorld() *world {
	return &world{
		began: time.Now(), got: make(map[string][]string),
		answers: map[string]func(int, *http.Request) int{"well": takes, "other": takes},
	}
}

// endpoint is one that says reason, count and instances.
func endpoint(t *testing.T, host string) Endpoint {
	t.Helper()
	body, err := NewBody(`"{alert.reason} {alert.count} {alert.instances}"`, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Endpoint{URL: "http://" + host + "/secret", Host: host, Body: body, Every: 5 * time.Minute, Hide: func(err error) error {
		return errors.New(strings.ReplaceAll(err.Error(), "SECRET", "{env.HOST}"))
	}}
}

func note(why reason.Reason, instance string) outcome.Note {
	return outcome.Note{Reason: why, Kind: "incomingMessageReceived", Level: zapcore.ErrorLevel, Instance: instance, At: time.Now()}
}

func wantAll(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAlertTimes: the first alert gathers for two seconds, the next one comes five minutes later; an
// address to paste is told at once; other reasons and types do not wait for it.
func TestAlertTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		for i := range 600 {
			d.Tell(note(reason.Schema, fmt.Sprint(i%2)))
			if i == 100 {
				d.Tell(note(reason.UnlistedSender, "9"))
			}
			time.Sleep(time.Second)
			if i == 0 {
				time.Sleep(100 * time.Millisecond) // no note comes just when an alert is due
			}
		}
		time.Sleep(time.Hour)
		if n := d.Pending(); n != 0 {
			t.Errorf("%d are pending", n)
		}
		d.Close()
		wantAll(t, w.all("well"), `2s "schema 2 0, 1"`, `1m40.1s "unlisted_sender 1 9"`, `5m2s "schema 300 0, 1"`, `10m2s "schema 298 0, 1"`)
	})
}

// TestAlertEndpointFails: an endpoint that is gone, hangs or answers 500 delays nothing, and is told when
// it is back. The pause before another try doubles up to a minute.
func TestAlertEndpointFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.answers["hung"] = func(_ int, r *http.Request) int { <-r.Context().Done(); return 0 }
		w.answers["sick"] = func(n int, _ *http.Request) int {
			if n < 10 || n == 11 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		}
		core, logs := observer.New(zap.WarnLevel)
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{endpoint(t, "gone"), endpoint(t, "hung"), endpoint(t, "sick")}, zap.New(core))
		for range 50 {
			d.Tell(note(reason.Schema, "1"))
		}
		if took := time.Since(w.began); took != 0 {
			t.Errorf("50 notes took %s", took)
		}
		time.Sleep(time.Minute)
		d.Tell(note(reason.Schema, "2")) // joins what could not be sent
		time.Sleep(5 * time.Minute)
		d.Tell(note(reason.Malformed, "3")) // the first pause is short again
		time.Sleep(time.Minute)
		if n := d.Pending(); n != 4 {
			t.Errorf("%d are pending, want two of each of two endpoints", n)
		}
		ending := time.Now()
		d.Close()
		if took := time.Since(ending); took != DefaultTimes().Flush {
			t.Errorf("the end took %s", took)
		}
		var want []string
		after := 2 * time.Second
		for _, pause := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60, 0} {
			text := `"schema 50 1"`
			if after > time.Minute {
				text = `"schema 51 1, 2"`
			}
			want = append(want, fmt.Sprintf("%s %s", after, text))
			after += time.Duration(pause) * time.Second
		}
		for _, after := range []time.Duration{2 * time.Second, 3 * time.Second} {
			want = append(want, fmt.Sprintf("%s %s", 6*time.Minute+after, `"malformed 1 3"`))
		}
		wantAll(t, w.all("sick"), want...)
		if hung := w.all("hung"); len(hung) < 2 || hung[1] != `13s "schema 50 1"` { // 10 s for an answer, and a pause
			t.Errorf("hung: %q", hung)
		}
		said := ""
		for _, entry := range logs.All() {
			said += fmt.Sprintln(entry.Message, entry.ContextMap())
		}
		for _, want := range []string{"alert could not be sent map", "answer 500", "connection refused by {env.HOST}", "alert could not be sent before the end map", "endpoint:gone", "reason:schema"} {
			if !strings.Contains(said, want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if strings.Contains(said, "/secret") || strings.Contains(said, "SECRET") {
			t.Error("the log has the URL")
		}
	})
}

// TestAlertReconfigured: unsent alerts and the times of those that were sent move to the endpoint of the
// same URL and body, each to one; what has no such endpoint is gone.
func TestAlertReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		twins := []Endpoint{endpoint(t, "well"), endpoint(t, "well"), endpoint(t, "other")}
		var err error
		if twins[1].Body, err = NewBody(`"b {alert.count}"`, true, nil); err != nil {
			t.Fatal(err)
		}
		d.Configure(twins, zap.NewNop())
		for i := range 3 {
			d.Tell(note(reason.Schema, fmt.Sprint(i)))
			slices.Reverse(twins[:2])
			d.Configure(twins[:2], zap.NewNop()) // other is gone
		}
		time.Sleep(time.Minute)
		got := w.all("well")
		slices.Sort(got)
		wantAll(t, got, `2s "b 3"`, `2s "schema 3 0, 1, 2"`)
		wantAll(t, w.all("other"))

		d.Tell(note(reason.Schema, "4"))
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		time.Sleep(time.Hour)
		got = w.all("well")
		wantAll(t, got[2:], `5m2s "schema 1 4"`)

		d.Tell(note(reason.Schema, "gone")) // with its endpoint, as one of another body takes its place
		changed := endpoint(t, "well")
		changed.Body = Body{text: "changed"}
		d.Configure([]Endpoint{changed}, zap.NewNop())
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())

		d.Tell(note(reason.Schema, "5")) // the end tells what is left
		d.Close()
		wantAll(t, w.all("well")[3:], `1h1m0s "schema 1 5"`)
		if d.Tell(note(reason.Schema, "6")); d.Pending() != 0 {
			t.Error("gathers after the end")
		}
	})
}

// TestAlertTwins: two endpoints that are the same in everything stay two.
func TestAlertTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		twins := []Endpoint{endpoint(t, "well"), endpoint(t, "well")}
		d.Configure(twins, zap.NewNop())
		d.Tell(note(reason.Schema, "1"))
		d.Configure(twins, zap.NewNop())
		time.Sleep(time.Minute)
		d.Close()
		wantAll(t, w.all("well"), `2s "schema 1 1"`, `2s "schema 1 1"`)
	})
}

// TestAlertStopped: an alert that is on its way when the config changes is sent again by the next one.
func TestAlertStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.answers["well"] = func(n int, r *http.Request) int {
			if n == 1 {
				<-r.Context().Done()
			}
			return http.StatusOK
		}
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		d.Tell(note(reason.Schema, "1"))
		time.Sleep(3 * time.Second)
		d.Tell(note(reason.Schema, "2"))
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		time.Sleep(time.Minute)
		d.Close()
		wantAll(t, w.all("well"), `2s "schema 1 1"`, `3s "schema 2 1, 2"`)
	})
}

// TestSilenceReaches: only the endpoints that asked for a silence of that length are told of it.
func TestSilenceReaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lengths := []time.Duration{0, time.Hour, 15 * time.Minute, time.Hour}
		for _, test := range []struct {
			note outcome.Note
			want []int
		}{
			{outcome.Note{Reason: reason.Silence, Silence: time.Hour}, []int{1, 3}},
			{outcome.Note{Reason: reason.Silence, Silence: 15 * time.Minute}, []int{2}},
			{outcome.Note{Reason: reason.Schema}, []int{0, 1, 2, 3}},
		} {
			w := newWorld()
			d := NewDesk(Gauges{}, DefaultTimes(), w)
			var endpoints []Endpoint
			for i, length := range lengths {
				e := endpoint(t, fmt.Sprint(i))
				e.Silence = length
				endpoints = append(endpoints, e)
				w.answers[fmt.Sprint(i)] = takes
			}
			d.Configure(endpoints, zap.NewNop())
			d.Tell(test.note)
			d.Close()
			var got []int
			for i := range lengths {
				if len(w.all(fmt.Sprint(i))) > 0 {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%s of %s is told to %v, want %v", test.note.Reason, test.note.Silence, got, test.want)
			}
		}
	})
}

// TestAlertGroup: an alert says when it began, the worst level, the first instances and the first example.
func TestAlertGroup(t *testing.T) {
	began := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var newer group
	for i := range 30 {
		level := zapcore.WarnLevel
		if i == 3 {
			level = zapcore.ErrorLevel
		}
		newer.add(outcome.Note{Level: level, Instance: fmt.Sprint(i / 2), Example: fmt.Sprint("E", i), At: began.Add(time.Duration(i) * time.Second)})
	}
	older := group{key: key{reason.Schema, "a"}}
	for i := range 25 {
		older.add(outcome.Note{Reason: reason.Schema, Kind: "a", Level: zapcore.WarnLevel, Instance: fmt.Sprint(i), At: began.Add(-time.Minute), More: "More."})
	}
	newer.merge(&older)
	if newer.count != 55 || newer.level != zapcore.ErrorLevel || len(newer.instances) != maxInstances || !newer.others || newer.example != "E0" || newer.more != "More." {
		t.Errorf("%+v", newer)
	}
	if values := newer.values(); values["{alert.first}"] != "2026-07-01T11:59:00Z" || values["{alert.last}"] != "2026-07-01T12:00:29Z" || !strings.HasSuffix(values["{alert.instances}"], "19, …") {
		t.Errorf("%v", values)
	}
}
