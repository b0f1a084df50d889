package greenapi

import (
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
		shared.(*fleet).Clock.Skip(d)
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
