package greenapi

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// later puts the clocks ahead by which failures are judged.
func later(d time.Duration) {
	fleets.Range(func(_, shared any) bool {
		shared.(*fleet).clock.ahead.Add(int64(d))
		return true
	})
}

// TestDeadLetter: what handlers fail again and again while they take others goes into the quarantine.
func TestDeadLetter(t *testing.T) {
	const good, bad = "good", "POISON"
	for _, test := range []struct {
		name    string
		status  int // 0: no answer in time
		options string
		posts   string // g for a good one, b for the bad one, a minute after the one before
		last    int
		reason  string
	}{
		{"refused", 422, "", "bgbgb", 200, "undeliverable"},
		{"failed", 500, "", "bgbgb", 200, "undeliverable"},
		{"not answered", 0, "attempt_timeout 20ms", "bgbgb", 200, "undeliverable"},
		{"misrouted", 404, "", "bgbgb", 200, "undeliverable"},
		{"refused for too short", 422, "", "bgb", 502, "handler_refused"},
		{"nothing else was taken", 422, "", "gbbbbb", 502, "handler_refused"},
		{"nothing else was taken in between for long", 422, "", "bgbbbbgb", 200, "undeliverable"},
		{"not now does not count", 503, "timeout 60ms", "bgbgbgb", 503, "not_now"},
		{"after two", 422, "dead_letter 2", "bgb", 200, "undeliverable"},
		{"at once", 422, "dead_letter 1", "b", 200, "undeliverable"},
		{"off", 422, "dead_letter off", "bgbgbgbgb", 502, "handler_refused"},
		{"counts anew", 422, "", "bgbgbgb", 502, "handler_refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.ContentLength != int64(len(edgetest.Numbered(bad))):
				case test.status == 0:
					<-r.Context().Done()
				default:
					w.WriteHeader(test.status)
					fmt.Fprint(w, "cannot read it")
				}
			})
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\n"+test.options+"\n}\nreverse_proxy "+up.Address))
			status := 0
			for i, kind := range test.posts {
				later(time.Minute / 2)
				if kind == 'b' {
					status = e.Post(edgetest.Numbered(bad))
				} else if got := e.Post(edgetest.Numbered(fmt.Sprint(good, i))); got != 200 {
					t.Errorf("good one: status %d", got)
				}
			}
			if status != test.last {
				t.Errorf("status %d, want %d", status, test.last)
			}
			e.WantRecord("reason", test.reason, "level", "error")
			kept := e.Kept()
			if (len(kept) == 1) != (test.reason == "undeliverable" || test.name == "counts anew") {
				t.Fatalf("%d kept", len(kept))
			}
			if len(kept) == 1 {
				entry := kept[0]
				said := "cannot read it"
				if test.status == 0 {
					said = ""
				}
				if entry.Reason != "undeliverable" || entry.NotificationID != bad || len(entry.Answers) != 1 ||
					entry.Answers[0].Handler != up.Address || entry.Answers[0].Status != test.status || entry.Answers[0].Text != said {
					t.Errorf("kept %+v", entry)
				}
			}
		})
	}
}

// TestDeadLetterForgets: one that was delivered at last, and comes again, has not failed before.
func TestDeadLetterForgets(t *testing.T) {
	up := edgetest.NewUpstream(t, 0, nil)
	broken := true
	up.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken && r.ContentLength == int64(len(edgetest.Numbered("POISON"))) {
			w.WriteHeader(500)
		}
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for i, want := range []int{502, 502, 200, 502, 502, 200} {
		broken = i != 2
		later(time.Minute)
		if got := e.Post(edgetest.Numbered("POISON")); got != want {
			t.Errorf("%d: status %d, want %d", i, got, want)
		}
		e.Post(edgetest.Numbered(fmt.Sprint("OK", i)))
	}
	if kept := e.Kept(); len(kept) != 1 {
		t.Errorf("%d kept", len(kept))
	}
}

// TestDeadLetterOutage: handlers that are out of order, beside others that are well, are no reason to
// keep what they fail.
func TestDeadLetterOutage(t *testing.T) {
	const instances, rounds = 8, 5 // of the sender: one a minute
	ofInstance := func(i, n int) string {
		return strings.Replace(edgetest.Numbered(fmt.Sprintf("N%02d", n)), "1101000001", fmt.Sprint(1101000100+i), 1)
	}
	for _, test := range []struct {
		name     string
		statuses []string // of the broken handler; 500 and 404 have always been asked elsewhere
		config   func(broken, well string) string
		stands   bool // what the broken handler gets stays with the sender
	}{
		{"bad deploy", []string{"400", "500"}, func(broken, well string) string {
			return edgetest.Site(edgetest.Loopback + "reverse_proxy " + broken + " " + well)
		}, false},
		{"bad deploy, by instance", []string{"400", "500"}, func(broken, well string) string {
			return edgetest.Site(edgetest.Loopback + "reverse_proxy " + broken + " " + well + " {\nlb_policy green_api instance\n}")
		}, false},
		{"bad deploy, no second opinion", []string{"400"}, func(broken, well string) string {
			return edgetest.Site(edgetest.Loopback + "deliver {\nsecond_opinion 0\n}\nreverse_proxy " + broken + " " + well + " {\nlb_policy green_api instance\n}")
		}, true},
		{"two fleets in a route", []string{"400", "500", "404"}, func(broken, well string) string {
			return edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\n@a vars {http.green_api.instance} 1101000100 1101000101\nhandle @a {\nreverse_proxy "+broken+"\n}\nhandle {\nreverse_proxy "+well+"\n}\n")
		}, true},
		{"one block in two sites", []string{"500"}, func(broken, well string) string {
			block := "green_api {\n" + edgetest.Loopback + "}\n"
			site := edgetest.SiteWith("", "@a header X-Site a\nhandle @a {\n"+block+"reverse_proxy "+broken+"\n}\nhandle {\n"+block+"reverse_proxy "+well+"\n}\n")
			return site
		}, true},
	} {
		for _, status := range test.statuses {
			t.Run(test.name+", "+status, func(t *testing.T) {
				broken, well := edgetest.Script(t, status), edgetest.Script(t, "200")
				e := edgetest.Start(t, test.config(broken.Address, well.Address))
				var next [instances]int
				for range rounds {
					later(time.Minute)
					for i := range instances {
						site := ""
						if i < 2 {
							site = "a"
						}
						if e.Post(ofInstance(i, next[i]), "X-Site", site) == 200 {
							next[i]++
							e.WantRecord("outcome", "delivered")
						}
					}
				}
				stood := 0
				for _, n := range next {
					if n == 0 {
						stood++
					} else if n != rounds {
						t.Errorf("an instance got on by %d in %d rounds", n, rounds)
					}
				}
				if (stood > 0) != test.stands || stood == instances || len(broken.Requests()) == 0 {
					t.Errorf("%d of %d instances stood still, the broken handler was asked %d times", stood, instances, len(broken.Requests()))
				}
				if kept := e.Kept(); len(kept) != 0 {
					t.Errorf("%d kept", len(kept))
				}
			})
		}
	}
}

// TestDeadLetterRoute: what an upstream of the rest of the route takes says nothing of what it fails: it
// may serve several paths.
func TestDeadLetterRoute(t *testing.T) {
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(400)
		}
	})
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"deliver {\nsecond_opinion 0\n}\n}\n@broken vars {http.green_api.instance} 1101000002\n"+
		"handle @broken {\nrewrite * /broken\nreverse_proxy "+up.Address+"\n}\nhandle {\nreverse_proxy "+up.Address+"\n}\n"))
	for i := range 4 {
		later(time.Minute)
		if got := e.Post(strings.Replace(edgetest.Numbered("N"), "1101000001", "1101000002", 1)); got != 502 {
			t.Errorf("%d: status %d", i, got)
		}
		if got := e.Post(edgetest.Numbered(fmt.Sprint("OK", i))); got != 200 {
			t.Errorf("%d: status %d of one that is taken", i, got)
		}
	}
}

// TestDeadLetterAfter: with a single instance, nothing is ever taken in between. Poison is kept after a
// time, and if it was an outage, not much is.
func TestDeadLetterAfter(t *testing.T) {
	for _, test := range []struct {
		name, status, options string
		minutes               int
		kept                  []int // after so many minutes
	}{
		{"default", "500", "", 450, []int{60, 185, 430}}, // an hour, two more, four more
		{"refused", "422", "", 70, []int{60}},
		{"broken off", "break", "", 70, []int{60}},
		{"sooner", "500", "dead_letter_after 15m", 60, []int{15, 50}},
		{"more often", "500", "dead_letter 9\ndead_letter_after 10m", 70, []int{40}},
		{"not now", "503", "timeout 5ms", 70, nil},
		{"misrouted", "404", "", 70, nil},
		{"off", "500", "dead_letter_after off", 70, nil},
		{"dead letters off", "500", "dead_letter off\ndead_letter_after 10m", 70, nil},
	} {
		for _, place := range []string{"in the block", "behind it"} {
			if place == "behind it" && test.name != "refused" && test.name != "sooner" {
				continue
			}
			t.Run(test.name+", "+place, func(t *testing.T) {
				up := edgetest.Script(t, test.status)
				config := "green_api {\n" + edgetest.Loopback + "deliver {\n" + test.options + "\n}\nreverse_proxy " + up.Address + "\n}\n"
				if place == "behind it" {
					config = "green_api {\n" + edgetest.Loopback + "deliver {\n" + test.options + "\nsecond_opinion 0\n}\n}\nreverse_proxy " + up.Address + "\n"
				}
				e := edgetest.Start(t, edgetest.SiteWith("", config))
				var kept []int
				sent := time.Now()
				for minute := 0; minute < test.minutes; minute += 5 {
					if e.Post(sentAt(fmt.Sprintf("N%d", len(kept)), sent)) == 200 {
						e.WantRecord("outcome", "quarantined", "reason", "undeliverable", "level", "error")
						kept = append(kept, minute)
					}
					later(5 * time.Minute)
				}
				if !slices.Equal(kept, test.kept) {
					t.Errorf("kept after %v minutes, want %v", kept, test.kept)
				}
			})
		}
	}
}

// sentAt is a notification with a timestamp.
func sentAt(id string, sent time.Time) string {
	return strings.Replace(edgetest.Numbered(id), "1700000000", fmt.Sprint(sent.Unix()), 1)
}

// TestDeadLetterFull: if it cannot be kept, the failure stands.
func TestDeadLetterFull(t *testing.T) {
	up := edgetest.NewUpstream(t, 422, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter 1\n}\nreverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1))
	if status := e.Post(edgetest.TextMessage); status != 502 {
		t.Errorf("status %d, want 502", status)
	}
	e.WantRecord("outcome", "failed", "reason", "handler_refused", "level", "error")
	if e.Record().Text("quarantine_error") == "" {
		t.Error("the record does not say why it is not kept")
	}
}

// deadLetterStep is one thing that happens, and when.
type deadLetterStep struct {
	at      time.Duration
	took    string // a handler that takes another one
	by      string // handlers that fail it, a letter each
	others  bool   // misrouted, all of them
	dead    bool
	counted int
}

// TestDeadLetterRules has the two rules, failure by failure.
func TestDeadLetterRules(t *testing.T) {
	const m, h = time.Minute, time.Hour
	for _, test := range []struct {
		name  string
		steps []deadLetterStep
	}{
		{"one handler takes others", []deadLetterStep{
			{by: "a", counted: 1}, {took: "a"}, {at: m, by: "a", counted: 2}, {took: "a"}, {at: 2 * m, by: "a", counted: 3, dead: true},
		}},
		{"another one does", []deadLetterStep{
			{by: "a", counted: 1}, {took: "b"}, {at: m, by: "a", counted: 2}, {took: "b"}, {at: 2 * m, by: "a", counted: 3}, {took: "b"}, {at: 59 * m, by: "a", counted: 4},
		}},
		{"one of two that fail it does", []deadLetterStep{
			{by: "ab", counted: 1}, {took: "b"}, {at: m, by: "ab", counted: 2}, {took: "a"}, {at: 2 * m, by: "ab", counted: 3, dead: true},
		}},
		{"one took another before it failed it for the first time", []deadLetterStep{
			{by: "a", counted: 1}, {took: "b"}, {at: m, by: "b", counted: 1}, {took: "a"}, {at: 2 * m, by: "b", counted: 1}, {at: 3 * m, by: "a", counted: 2},
		}},
		{"it took another before the failure before", []deadLetterStep{
			{by: "a", counted: 1}, {took: "a"}, {at: 20 * time.Second, by: "a", counted: 1}, {at: m, by: "a", counted: 1},
			{at: 2 * m, by: "a", counted: 2}, {at: 3 * m, by: "a", counted: 3}, {at: 4 * m, by: "a", counted: 4},
		}},
		{"too soon", []deadLetterStep{
			{by: "a", counted: 1}, {took: "a"}, {at: time.Second, by: "a", counted: 1}, {took: "a"}, {at: 44 * time.Second, by: "a", counted: 1}, {took: "a"},
			{at: 45 * time.Second, by: "a", counted: 2}, {took: "a"}, {at: 89 * time.Second, by: "a", counted: 2}, {took: "a"}, {at: 90 * time.Second, by: "a", counted: 3, dead: true},
		}},
		{"misrouted", []deadLetterStep{
			{by: "a", others: true, counted: 1}, {took: "a"}, {at: m, by: "a", others: true, counted: 2}, {at: 2 * h, by: "a", others: true, counted: 2},
			{took: "a"}, {at: 3 * h, by: "a", others: true, counted: 3, dead: true},
		}},
		{"after an hour", []deadLetterStep{
			{by: "a", counted: 1}, {at: 30 * m, by: "a", counted: 2}, {at: h - 1, by: "a", counted: 3}, {at: h + 45*time.Second, by: "a", counted: 4, dead: true},
		}},
		{"after an hour, but too seldom", []deadLetterStep{
			{by: "a", counted: 1}, {at: h, by: "a", counted: 2}, {at: h + time.Second, by: "a", counted: 2}, {at: h + m, by: "a", counted: 3, dead: true},
		}},
		{"after an hour, of an unknown handler", []deadLetterStep{
			{counted: 1}, {took: ""}, {at: m, counted: 2}, {took: ""}, {at: 2 * m, counted: 3}, {at: h, counted: 4, dead: true},
		}},
		{"a handler that failed it took another: the hour begins again", []deadLetterStep{
			{by: "a", counted: 1}, {at: 30 * m, by: "b", counted: 2}, {took: "b"}, {at: h, by: "a", counted: 1}, {at: 90 * m, by: "a", counted: 2},
			{at: 2*h - 1, by: "a", counted: 3}, {at: 2*h + m, by: "a", counted: 4, dead: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d deadLetters
			for i, step := range test.steps {
				if step.counted == 0 {
					d.took(step.took)
					continue
				}
				round := failedRound{answered: !step.others}
				for _, handler := range step.by {
					round.by = append(round.by, string(handler))
				}
				got := d.fail([]byte("a body"), round, deadLetterLimits{3, h}, step.at)
				if got.dead != step.dead || got.failures != step.counted {
					t.Errorf("%d: %+v, want dead %t, %d", i, got, step.dead, step.counted)
				}
			}
		})
	}
}

// TestDeadLetterDoubles: each further one has to wait twice as long, until a handler takes something.
func TestDeadLetterDoubles(t *testing.T) {
	var d deadLetters
	limits := deadLetterLimits{2, time.Hour}
	fails := func(body string, at time.Duration) ruling {
		return d.fail([]byte(body), failedRound{by: []string{"a"}, answered: true}, limits, at)
	}
	for _, body := range []string{"A", "B", "C"} {
		fails(body, 0)
	}
	for i, step := range []struct {
		body string
		at   time.Duration
		dead bool
	}{{"A", 1, true}, {"B", 1, false}, {"C", 1, false}, {"B", 2, true}, {"C", 3, false}, {"C", 4, true}} {
		if got := fails(step.body, step.at*time.Hour); got.dead != step.dead {
			t.Errorf("%d: %+v", i, got)
		} else if step.body == "B" && got.dead { // but it could not be kept
			d.takeBack(got)
			if got := fails("B", 2*time.Hour); !got.dead {
				t.Errorf("%d, again: %+v", i, got)
			}
		}
	}
	d.took("b")
	fails("D", 10*time.Hour)
	if got := fails("D", 11*time.Hour); !got.dead {
		t.Errorf("after a delivery: %+v", got)
	}
}

// TestDeadLettersBounded: however many different bodies fail, and handlers take something, the memory
// for them is bounded.
func TestDeadLettersBounded(t *testing.T) {
	var d deadLetters
	body := make([]byte, 8)
	round := failedRound{by: []string{"a"}, answered: true}
	for i := range 3 * maxDeadLetters {
		binary.BigEndian.PutUint64(body, uint64(i))
		d.fail(body, round, deadLetterLimits{3, time.Hour}, 0)
		d.took(fmt.Sprint("handler ", i))
	}
	if len(d.of) != maxDeadLetters || d.oldest.Len() != maxDeadLetters || len(d.takers) > maxTakers {
		t.Errorf("%d and %d remembered, of %d handlers", len(d.of), d.oldest.Len(), len(d.takers))
	}
	d.took("a")
	if got := d.fail(body, round, deadLetterLimits{3, time.Hour}, time.Hour); got.failures != 2 {
		t.Errorf("the last one: %d failures", got.failures)
	}
}
