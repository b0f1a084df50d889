package greenapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// slowAtFirst is a handler that has its first notification in hand from began until goOn is closed, and counts what it
// is asked.
func slowAtFirst(t *testing.T, status int) (up *edgetest.Upstream, asked *atomic.Int64, began, goOn chan struct{}) {
	t.Helper()
	asked, began, goOn = new(atomic.Int64), make(chan struct{}), make(chan struct{})
	up = edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			close(began)
			<-goOn
		}
		w.WriteHeader(status)
	})
	return up, asked, began, goOn
}

// TestJoin: a notification that comes again while its first delivery still runs, after the sender
// gave up, joins that one; while the sender waits, the same bytes are another notification.
func TestJoin(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int // of the handler
		answer int
	}{
		{"taken", 200, 200},
		{"refused", 422, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			up, asked, began, goOn := slowAtFirst(t, test.status)
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
			e.HangUpAfter(edgetest.TextMessage, began)
			awaitHangUp(t)
			answer := make(chan int)
			go func() { answer <- e.Post(edgetest.TextMessage) }()
			select {
			case status := <-answer:
				t.Fatalf("answered %d before the handler did", status)
			case <-time.After(100 * time.Millisecond):
			}
			close(goOn)
			if status := <-answer; status != test.answer {
				t.Errorf("status %d, want %d", status, test.answer)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			// The one whose sender has hung up writes its record when the other one may have its answer already.
			edgetest.Eventually(t, "records of both", func() bool { return len(e.Logs.Records(t)) >= 2 })
			joined := 0
			for _, record := range e.Logs.Records(t) {
				if record["joined"] == true {
					joined++
				}
				if record.Text("handler") != up.Address || record.Text("attempts") != "1" {
					t.Errorf("%v", record)
				}
			}
			if n := len(e.Logs.Records(t)); n != 2 || joined != 1 {
				t.Errorf("%d records, %d joined", n, joined)
			}
		})
	}

	began, goOn := make(chan struct{}, 2), make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		began <- struct{}{}
		<-goOn
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	answers := make(chan int)
	for range 2 {
		go func() { answers <- e.Post(edgetest.TextMessage) }()
	}
	<-began
	<-began // both
	close(goOn)
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Errorf("status %d and %d", a, b)
	}
}

// TestUnheard: what ended well when its sender had hung up is not done a second time; the sender is
// told when it sends it again, once.
func TestUnheard(t *testing.T) {
	for _, test := range []struct {
		name    string
		status  int // of the handler
		options string
		later   time.Duration
		answer  int
		reason  string // of the re-send
		asked   int64
		kept    int
	}{
		{"taken", 200, "", time.Minute, 200, "duplicate", 1, 0},
		{"taken, with deduplicate", 200, "deduplicate 1h", time.Minute, 200, "duplicate", 1, 0},
		{"taken, but long ago", 200, "", 10*time.Minute + time.Second, 200, "", 2, 0},
		{"dead letter", 422, "dead_letter 1", time.Minute, 200, "duplicate", 1, 1},
		{"failed", 422, "", time.Minute, 502, "handler_refused", 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			up, asked, began, goOn := slowAtFirst(t, test.status)
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\n"+test.options+"\n}\nreverse_proxy "+up.Address))
			e.HangUpAfter(edgetest.TextMessage, began)
			awaitHangUp(t)
			close(goOn)
			edgetest.Eventually(t, "end of the first", func() bool { return len(e.Logs.Records(t)) == 1 })
			later(test.later)
			if status := e.Post(edgetest.TextMessage); status != test.answer {
				t.Errorf("status %d, want %d", status, test.answer)
			}
			e.WantRecord("reason", test.reason)
			if test.reason == "duplicate" {
				e.WantRecord("outcome", "dropped", "level", "debug")
			}
			if n := asked.Load(); n != test.asked {
				t.Errorf("asked %d times, want %d", n, test.asked)
			}
			if test.options == "" && test.status == 200 { // it was told, so this is another one
				e.Post(edgetest.TextMessage)
				e.WantRecord("outcome", "delivered")
			}
			if kept := e.Kept(); len(kept) != test.kept {
				t.Errorf("%d kept, want %d", len(kept), test.kept)
			}
		})
	}
}

// awaitHangUp waits until the edge knows that the sender of the one that is on its way has hung up.
func awaitHangUp(t *testing.T) {
	fleet := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	edgetest.Eventually(t, "sender's end", fleet.IsUnheard)
}

// warnSoon lets the operator hear sooner of a notification that waits.
func warnSoon(after time.Duration) {
	holdFleet(defaultName).newest.Load().limits.WarnAfter = after
	_ = releaseFleet(defaultName)
}

// TestLoopWarns: the operator hears of a notification that waits, once.
func TestLoopWarns(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 2s\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
	warnSoon(time.Second)
	if status := e.Post(edgetest.TextMessage); status != 503 {
		t.Errorf("status %d", status)
	}
	records := e.Logs.Records(t)
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	if first := records[0]; first["msg"] != "notification waits for a handler" || first["level"] != "warn" ||
		first.Text("instance") != "1101000001" || first["attempts"].(float64) < 3 {
		t.Errorf("%v", first)
	}
	if last := records[1]; last["level"] != "error" || last["reason"] != "not_now" {
		t.Errorf("%v", last)
	}
}

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
	const instances, rounds = 12, 3 // of the sender: one a minute
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
			return edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\n@a vars {http.green_api.instance} 1101000100\nhandle @a {\nreverse_proxy "+broken+"\n}\nhandle {\nreverse_proxy "+well+"\n}\n")
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
						if i == 0 {
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

// TestDeadLetterAfter: what goes on failing while nothing is taken in between is kept after a time. internal/delivery
// has the whole table.
func TestDeadLetterAfter(t *testing.T) {
	for _, test := range []struct {
		name, status, options string
		minutes               int
		kept                  []int // after so many minutes
	}{
		{"sooner", "500", "dead_letter_after 15m", 60, []int{15, 50}},
		{"refused", "422", "second_opinion 0", 70, []int{60}},
	} {
		for _, place := range []string{"in the block", "behind it"} {
			if place == "behind it" && test.name == "sooner" {
				continue // each attempt would be made twice, with a pause
			}
			t.Run(test.name+", "+place, func(t *testing.T) {
				up := edgetest.Script(t, test.status)
				config := "green_api {\n" + edgetest.Loopback + "deliver {\n" + test.options + "\n}\nreverse_proxy " + up.Address + "\n}\n"
				if place == "behind it" {
					config = "green_api {\n" + edgetest.Loopback + "deliver {\n" + test.options + "\n}\n}\nreverse_proxy " + up.Address + "\n"
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

// wantID is what handlers are promised in X-Green-Api-Id: stored ids must go on to mean the same.
func wantID(body string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(body)))[:32] }

// TestID: a handler gets the same X-Green-Api-Id at each attempt, re-send and replay of a notification,
// over a reload, too, and another one with another notification.
func TestID(t *testing.T) {
	var well atomic.Bool
	answer := func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}
	one, other := edgetest.NewUpstream(t, 0, answer), edgetest.NewUpstream(t, 0, answer)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter 1\n}\nreverse_proxy "+one.Address+" "+other.Address))
	never := strings.Replace(config, "dead_letter 1", "dead_letter off", 1)
	e := edgetest.Start(t, never)
	post := func(status int) {
		t.Helper()
		if got := e.Post(edgetest.TextMessage, idHeader, "forged"); got != status {
			t.Fatalf("status %d, want %d", got, status)
		}
	}
	post(502)
	post(502)
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	post(200) // kept
	well.Store(true)
	response, err := http.Post("http://"+admin+"/green_api/quarantine/replay?all=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text := edgetest.ReaderText(t, response.Body); !strings.Contains(text, `"outcome":"delivered"`) {
		t.Fatalf("replay: %s", text)
	}
	all := slices.Concat(one.Requests(), other.Requests())
	replays := 0
	for _, asked := range all {
		if got := asked.Header.Values(idHeader); len(got) != 1 || got[0] != wantID(edgetest.TextMessage) {
			t.Errorf("a handler got the id %q, want %s", got, wantID(edgetest.TextMessage))
		}
		if asked.Header.Get(replayHeader) != "" {
			replays++
		}
	}
	if len(all) != 7 || replays != 1 {
		t.Errorf("asked %d times, %d of them replays; want 7 and 1", len(all), replays)
	}

	e.Post(edgetest.StateChanged)
	for _, asked := range slices.Concat(one.Requests(), other.Requests()) {
		if asked.Body == edgetest.StateChanged && asked.Header.Get(idHeader) != wantID(edgetest.StateChanged) {
			t.Errorf("another notification has the id %q", asked.Header.Get(idHeader))
		}
	}
}

// TestIDWithoutProxy: the rest of the route gets the id, too.
func TestIDWithoutProxy(t *testing.T) {
	e := edgetest.Start(t, edgetest.SiteWith("", "route {\ngreen_api {\n"+edgetest.Loopback+"}\n@id header "+idHeader+" "+wantID(edgetest.TextMessage)+"\nrespond @id 204\nrespond 500\n}\n"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("status %d, want 200", status)
	}
}

// TestIDReceived: what comes from the HTTP API has the id that it would have if it were posted.
func TestIDReceived(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	want := edgetest.NoteAll(v, instance, 3)
	edgetest.Start(t, edgetest.Site("auth {\ntoken TOKEN\n}\n"+v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "all to be deleted", func() bool { return v.Queued(instance) == 0 })
	handler.WantTaken(t, want)
	for _, asked := range handler.Requests() {
		if got := asked.Header.Get(idHeader); got != wantID(asked.Body) {
			t.Errorf("the handler got the id %q, want %s", got, wantID(asked.Body))
		}
	}
}

// TestRetention: a notification that fails for a day is kept before GREEN-API deletes it, and so is what
// stands behind it.
func TestRetention(t *testing.T) {
	const behind = 300
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 30ms\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
	sent := time.Now()
	note := func(i int) string { return sentAt(fmt.Sprintf("N%04d", i), sent) }
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 503}, {12 * time.Hour, 503}, {11*time.Hour + 29*time.Minute, 503}, {2 * time.Minute, 200}} {
		later(step.later)
		if got := e.Post(note(0)); got != step.want {
			t.Errorf("status %d, want %d", got, step.want)
		}
	}
	e.WantRecord("outcome", "quarantined", "reason", "retention", "found", "not_now", "level", "error")
	began := time.Now()
	var posting sync.WaitGroup
	for lane := range 8 { // at once, which spares the test seconds
		posting.Go(func() {
			for i := lane; i < behind; i += 8 {
				if got := e.Post(note(i + 1)); got != 200 {
					t.Errorf("%d behind it: status %d", i+1, got)
				}
			}
		})
	}
	posting.Wait()
	t.Logf("%d behind the head took %s", behind, time.Since(began))
	e.WantRecord("outcome", "quarantined", "reason", "retention", "attempts", "1")
	if got := e.Post(sentAt("YOUNG", sent.Add(23*time.Hour))); got != 503 {
		t.Errorf("one that has time: status %d", got)
	}
	if got := e.Post(strings.Replace(note(1), "1101000001", "1101000002", 1)); got != 503 {
		t.Errorf("one of another instance: status %d", got)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if n := store.Stats().Entries; n != behind+1 {
		t.Errorf("%d kept", n)
	}
}

// TestRetentionLastAttempt: what stands behind is asked about once, at one handler, for a short time.
func TestRetentionLastAttempt(t *testing.T) {
	up, other := edgetest.Script(t, "500", "500", "500", "200", "500"), edgetest.Script(t, "500")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address+" "+other.Address+" {\nlb_policy first\n}"))
	sent := time.Now()
	e.Post(sentAt("HEAD", sent))
	later(23*time.Hour + 30*time.Minute)
	for _, step := range []struct{ id, outcome string }{{"HEAD", "quarantined"}, {"ONE", "quarantined"}, {"TWO", "delivered"}, {"THREE", "failed"}} {
		e.Post(sentAt(step.id, sent))
		e.WantRecord("outcome", step.outcome)
	}
	if n := len(other.Requests()); n != 3 { // twice about the head, once about the last one
		t.Errorf("the other handler was asked %d times", n)
	}
}

// TestRetentionLastReached: a handler that cannot be reached is no attempt: the others are asked.
func TestRetentionLastReached(t *testing.T) {
	gone, up := edgetest.NewUpstream(t, 500, nil), edgetest.Script(t, "500", "500", "500", "200")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 500ms\n}\nreverse_proxy "+gone.Address+" "+up.Address+" {\nlb_policy first\nmax_fails 1000\n}"))
	sent := time.Now()
	e.Post(sentAt("HEAD", sent))
	gone.Close()
	later(23*time.Hour + 10*time.Minute)
	e.Post(sentAt("HEAD", sent)) // so that it stands
	for _, step := range []struct{ id, outcome string }{{"ONE", "quarantined"}, {"TWO", "delivered"}} {
		e.Post(sentAt(step.id, sent))
		e.WantRecord("outcome", step.outcome, "attempts", "2")
	}
	if n := len(up.Requests()); n != 4 {
		t.Errorf("the handler that is there was asked %d times", n)
	}
}

// TestRetentionOverRestart: the time since it first failed outlives the process, and a reload.
func TestRetentionOverRestart(t *testing.T) {
	config := edgetest.Site(edgetest.Loopback + "deliver {\ntimeout 30ms\n}\nreverse_proxy 127.0.0.1:" + edgetest.FreePort(t))
	e := edgetest.Start(t, config)
	body := sentAt("HEAD", time.Now().Add(time.Hour)) // nothing shows by its own timestamp
	if got := e.Post(body); got != 503 {
		t.Errorf("status %d", got)
	}
	if err := caddy.Stop(); err != nil { // at the end it is in the file
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := store.FirstFailures()
	if err != nil || len(saved) != 2 {
		t.Fatalf("%d saved, %v", len(saved), err)
	}
	for i := range saved {
		saved[i].At = saved[i].At.Add(-24 * time.Hour)
	}
	if err := store.SaveFirstFailures(saved, nil, 0); err != nil {
		t.Fatal(err)
	}
	store.Close()
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := e.Post(body); got != 200 {
		t.Errorf("after the restart: status %d", got)
	}
	e.WantRecord("reason", "retention")
}

// TestRetentionForgets: what is delivered is forgotten, in the file, too.
func TestRetentionForgets(t *testing.T) {
	up := edgetest.Script(t, "500", "200", "500")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter off\n}\nreverse_proxy "+up.Address))
	body := sentAt("HEAD", time.Now().Add(48*time.Hour))
	for i, want := range []int{502, 200, 502} {
		if got := e.Post(body); got != want {
			t.Errorf("%d: status %d, want %d", i, got, want)
		}
		if i == 1 {
			later(24 * time.Hour)
		}
	}
	shared := holdQuarantine(e.Dir)
	defer releaseQuarantine(e.Dir)
	edgetest.Eventually(t, "it to be saved", func() bool {
		store, err := shared.Open()
		if err != nil {
			t.Fatal(err)
		}
		saved, err := store.FirstFailures()
		return err == nil && len(saved) == 2 && time.Until(saved[0].At) > 23*time.Hour
	})
}

// TestRetentionReceived: a notification of the HTTP API is deleted where a posted one is answered 200.
func TestRetentionReceived(t *testing.T) {
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 30ms\n}\nreverse_proxy "+up.Address))
	handler := func() *Handler {
		fleet := holdFleet(defaultName)
		defer releaseFleet(defaultName)
		return fleet.newest.Load()
	}()
	receive := &Receive{Instance: "1101000001", URI: "/"}
	body := []byte(sentAt("HEAD", time.Now()))
	for i, want := range []int{503, 200} {
		if end := handler.receive(receive, body); end.Status != want {
			t.Errorf("%d: status %d, want %d", i, end.Status, want)
		}
		later(24 * time.Hour)
	}
}

const nameIsAnothers = "a green_api block has the name that another one had before"

// TestTakeOver: what waits goes on through the newest block of its name if that one would have let it in and has a
// proxy of its own, and else stays with the handlers that it came to.
func TestTakeOver(t *testing.T) {
	tests := []struct {
		name, auth  string
		withProxy   bool
		taken, warn bool
	}{
		{"the same token", "token TOKEN", true, true, false},
		{"another one beside it", "token other TOKEN", true, true, false},
		{"for the instance alone", "instance 1101000001 TOKEN", true, true, false},
		{"off", "off", true, true, false},
		{"report_only", "token other\nreport_only", true, true, false},
		{"another token", "token other", true, false, true},
		{"another token of the instance", "token TOKEN\ninstance 1101000001 other", true, false, false},
		{"the token of another instance", "instance 1101000002 TOKEN", true, false, false},
		{"the route delivers", "token TOKEN", false, false, false},
	}
	var ready atomic.Bool
	own := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	others := edgetest.NewUpstream(t, 200, nil)
	asked := func(up *edgetest.Upstream) map[string]bool {
		paths := make(map[string]bool)
		for _, r := range up.Requests() {
			paths[r.Path] = true
		}
		return paths
	}
	var before, after strings.Builder
	taken := 0
	for i, test := range tests {
		block := edgetest.Loopback + "reverse_proxy " + own.Address + "\n}\n"
		auth := "auth {\n" + test.auth + "\n}\n"
		if test.auth == "off" {
			auth = "auth off\n"
		}
		if test.withProxy {
			auth += "reverse_proxy " + others.Address + "\n"
		}
		if test.taken {
			taken++
		}
		fmt.Fprintf(&before, "green_api /n%d {\nname n%d\n%s", i, i, block)
		// The block of before has a name of its own now, and another one has its name.
		fmt.Fprintf(&after, "green_api /n%d {\nname own%d\n%s", i, i, block)
		fmt.Fprintf(&after, "green_api /new%d {\nname n%d\nip_filter {\nallow 127.0.0.1\n}\n%s}\n", i, i, auth)
	}
	e := edgetest.Start(t, edgetest.SiteWith("", before.String()))
	var posting sync.WaitGroup
	for i, test := range tests {
		posting.Go(func() {
			url := fmt.Sprintf("http://127.0.0.1:%s/n%d", e.Port, i)
			if status := e.Send(http.MethodPost, url, strings.NewReader(edgetest.TextMessage)).StatusCode; status != 200 {
				t.Errorf("%s: status %d", test.name, status)
			}
		})
	}
	edgetest.Eventually(t, "waiting", func() bool { return len(asked(own)) == len(tests) })
	if err := e.Load(edgetest.SiteWith("", after.String())); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the new blocks' handler", func() bool { return len(asked(others)) >= taken })
	ready.Store(true)
	posting.Wait()
	for i, test := range tests {
		if got := asked(others)[fmt.Sprintf("/n%d", i)]; got != test.taken {
			t.Errorf("%s: taken over %t, want %t", test.name, got, test.taken)
		}
		warned := strings.Contains(e.Logs.All(), nameIsAnothers+fmt.Sprintf(`, and none of its tokens and instances","name":"n%d"`, i))
		if warned != test.warn {
			t.Errorf("%s: warned %t, want %t", test.name, warned, test.warn)
		}
	}
}

// TestTakeOverByInstance: of what was received, and of a replay, the sender's token is not known.
func TestTakeOverByInstance(t *testing.T) {
	h := &Handler{Auth: newAuth(t, Auth{Instance: map[string][]string{"1101000002": {"other"}}}), Receive: []*Receive{{Instance: "01101000003"}}}
	for instance, want := range map[string]bool{"1101000001": false, "1101000002": true, "1101000003": true, "": true} {
		received := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		received.Via, received.N.Instance = viaHTTPAPI, instance
		replay := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		replay.N.Instance = instance
		replay.Header.Set(replayHeader, "1")
		if got := h.takesOver(&received.Case); got != want {
			t.Errorf("received, %q: %t", instance, got)
		}
		if got := h.takesOver(&replay.Case); got != want {
			t.Errorf("replayed, %q: %t", instance, got)
		}
		posted := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		posted.N.Instance = instance
		if h.takesOver(&posted.Case) {
			t.Errorf("posted without a token, %q", instance)
		}
	}
}

// TestSlowHandler: a handler that lets a sender wait is told of while it does, and not again so soon.
func TestSlowHandler(t *testing.T) {
	answer := make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-answer })
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	warnSoon(200 * time.Millisecond)
	const told = "handler is slow to answer, and the sender waits for it"
	first := make(chan int)
	go func() { first <- e.Post(edgetest.TextMessage) }()
	edgetest.Eventually(t, "WARN", func() bool { return strings.Contains(e.Logs.All(), told) })
	before, after, _ := strings.Cut(e.Logs.All(), told)
	line := before[strings.LastIndex(before, "\n")+1:] + after
	line, _, _ = strings.Cut(line, "\n")
	close(answer)
	if status := <-first; status != 200 {
		t.Errorf("answered %d", status)
	}

	h := holdFleet(defaultName).newest.Load()
	defer releaseFleet(defaultName)
	c := &outcome.Case{N: new(notification.Notification)}
	for _, test := range []struct {
		handler string
		after   time.Duration
		want    int
	}{{up.Address, 0, 1}, {"another:80", 0, 2}, {up.Address, 5 * time.Minute, 3}} {
		h.tellSlow(c, test.handler, time.Now().Add(test.after))
		if n := strings.Count(e.Logs.All(), told); n != test.want {
			t.Errorf("%s, after %s: told %d times, want %d", test.handler, test.after, n, test.want)
		}
	}
	for _, want := range []string{`"level":"warn"`, `"handler":"` + up.Address + `"`, `"instance":"1101000001"`} {
		if !strings.Contains(line, want) {
			t.Errorf("record %s, want %s", line, want)
		}
	}
}

// TestHandlerFails: a handler that others stand in for is named once, and when it is well again.
func TestHandlerFails(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	sick, well := edgetest.Script(t, "503", "503", "503", "200"), edgetest.Script(t, "200")
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+sick.Address+" "+well.Address+" {\nlb_policy first\n}"))
	for i := range 3 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
		e.WantRecord("outcome", "delivered", "level", "info", "handler", well.Address, "attempts", "2", "tried", "["+sick.Address+": 503]")
	}
	e.Post(edgetest.Numbered("WELL"))
	logs := e.Logs.All()
	if n := strings.Count(logs, "handler fails, others are asked if there are any"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if !strings.Contains(logs, `"msg":"handler takes notifications again","handler":"`+sick.Address+`"`) {
		t.Error("not told that it is well again")
	}
	const over = `"reason":"recovered"`
	edgetest.Eventually(t, "alerts", func() bool { return strings.Contains(strings.Join(in.All(), ""), over) })
	if got := in.All(); len(got) != 2 || !strings.Contains(got[0], "Handler "+sick.Address+": not_now.") ||
		!strings.Contains(got[1], "Handler "+sick.Address+" takes notifications again.") || !strings.Contains(got[1], `"level":"info"`) {
		t.Errorf("told %q", got)
	}
}

// hurry makes the pause of 60 ms two minutes to the edge, which does not count what fails twice in less.
func hurry(ctx context.Context) {
	began, told := time.Now(), time.Duration(0)
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		passed := 2000 * time.Since(began)
		later(passed - told)
		told = passed
	}
}

// TestChaosPoison: one body kills each handler that it meets, and another is refused by all. They go into
// the quarantine, and the other instances do not notice.
func TestChaosPoison(t *testing.T) { edgetest.BothWays(t, chaosPoison) }

func chaosPoison(t *testing.T, option string) {
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	poison := make(map[string]string) // what handlers make of a body, by its mark
	instances := make(map[string]bool)
	for i, mode := range []string{"break", "422"} {
		poison[fmt.Sprintf("%d-%06d", edgetest.ChaosInstance+i, 1)] = mode // early: a slow machine sends few
		instances[strconv.Itoa(edgetest.ChaosInstance+i)] = true
	}
	for _, f := range handlers {
		f.Does(func(body []byte) string { return cmp.Or(poison[edgetest.MarkOf(body)], "200") })
	}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy"+edgetest.Addresses(handlers)+" {\n"+option+"}"))
	var worst float64
	report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), hurry)
	for _, record := range e.Logs.Records(t) {
		if duration, ok := record["duration"].(float64); ok && !instances[record.Text("instance")] {
			worst = max(worst, duration)
		}
	}
	e.Kept()
	l.Verify(e.Dir, report)
	if report.Resent != 4 {
		t.Errorf("poison was re-sent %d times, want twice each", report.Resent)
	}
	for mark, mode := range poison {
		if l.Taken[mark] != 0 {
			t.Errorf("the poison of %s was taken %d times", mode, l.Taken[mark])
		}
	}
	if worst > 1 {
		t.Errorf("another instance waited %.3f s", worst)
	}
}
