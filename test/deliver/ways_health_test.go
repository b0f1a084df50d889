//go:build unix

package deliver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// An illness is a handler that fails, beside one that is well.
type illness struct {
	name    string
	bad     act // nil for one that cannot be connected to
	first   act // what it does first; nil for the same
	options string
	inside  string
	posts   int  // 0 for 4
	alone   bool // there is no other
	chance  bool // the policy chooses by chance: only the sums are compared

	asked int // how often the bad one gets a notification
	fails int // what /reverse_proxy/upstreams then shows of it
}

var illnesses = []illness{
	{name: "refused", options: "max_fails 2", fails: 2},
	{name: "closes", bad: says("").thenCloses(), options: "max_fails 2", asked: 2, fails: 2},
	{name: "closes, max_fails 1", bad: says("").thenCloses(), options: "max_fails 1", asked: 1, fails: 1},
	{name: "closes unread", bad: early("").thenCloses(), options: "max_fails 2", asked: 2, fails: 2},
	{name: "garbage", bad: says("hello\r\n\r\n").thenCloses(), options: "max_fails 2", asked: 2, fails: 2},
	{name: "hangs", bad: says("").thenHangs(), options: "max_fails 1", inside: "deliver {\nattempt_timeout 600ms\n}", asked: 1, fails: 1},
	{name: "a long header", bad: answers("200 OK", "X-Long: "+strings.Repeat("x", 100<<10)).thenCloses(), options: "max_fails 1", asked: 1, fails: 1},
	{name: "half a body", bad: says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenCloses(), options: "max_fails 2", asked: 4},
	{name: "500", bad: answers("500 X"), options: "max_fails 2", asked: 4},
	{name: "500 that counts", bad: answers("500 X"), options: "max_fails 2\nunhealthy_status 5xx", asked: 2, fails: 2},
	{name: "500 that counts twice", bad: answers("500 X"), options: "max_fails 3\nunhealthy_status 5xx 500", asked: 2, fails: 4},
	{name: "500 that does not count", bad: answers("500 X"), options: "max_fails 2\nunhealthy_status 502 4xx", asked: 4},
	{name: "422 that counts", bad: answers("422 X"), options: "max_fails 2\nunhealthy_status 4xx", asked: 2, fails: 2},
	{name: "200 that counts", bad: answers("200 OK"), options: "max_fails 2\nunhealthy_status 200", asked: 2, fails: 2},
	{name: "half a body that counts", bad: says("HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf").thenCloses(), options: "max_fails 2\nunhealthy_status 500", asked: 2, fails: 2},
	{name: "slow", bad: slow(answers("200 OK")), options: "max_fails 2\nunhealthy_latency 300ms", asked: 2, fails: 2},
	{name: "slow and refused", bad: slow(answers("500 X")), options: "max_fails 2\nunhealthy_latency 300ms\nunhealthy_status 500", asked: 1, fails: 2},
	{name: "slow in the body", bad: slowBody, options: "max_fails 2\nunhealthy_latency 300ms", asked: 4},
	{name: "the defaults", bad: says("").thenCloses(), posts: 6, asked: 3, fails: 3},
	{name: "round_robin", bad: says("").thenCloses(), options: "lb_policy round_robin\nmax_fails 2", posts: 8, asked: 2, fails: 2},
	{name: "weighted_round_robin", bad: says("").thenCloses(), options: "lb_policy weighted_round_robin 3 1\nmax_fails 2", posts: 8, asked: 2, fails: 2},
	{name: "random", bad: says("").thenCloses(), options: "lb_policy random\nmax_fails 1", posts: 30, chance: true, asked: 1, fails: 1},
	{name: "green_api", bad: says("").thenCloses(), options: "lb_policy green_api\nmax_fails 1", posts: 30, chance: true, asked: 1, fails: 1},
	{name: "green_api, refused", options: "lb_policy green_api\nmax_fails 1", posts: 30, chance: true, fails: 1},
	{name: "alone, green_api", first: says("").thenCloses(), bad: answers("200 OK"), options: "lb_policy green_api\nmax_fails 1", alone: true, asked: 5, fails: 1},
	{name: "alone, first", first: says("").thenCloses(), bad: answers("200 OK"), options: "max_fails 1", inside: "deliver {\ntimeout 1s\nattempt_timeout 800ms\n}", alone: true, posts: 2, asked: 1, fails: 1},
	{name: "dynamic", first: says("").thenCloses(), bad: answers("200 OK"), options: "lb_policy green_api\ndynamic a handlers.test UPSTREAM {\nresolvers NAMES\n}\nmax_fails 1", alone: true, asked: 5, fails: 1},
}

// slow takes longer than unhealthy_latency says.
func slow(do act) act {
	return func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
		time.Sleep(400 * time.Millisecond)
		return do(c, in, r)
	}
}

// slowBody is quick with the header of its answer.
func slowBody(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
	time.Sleep(400 * time.Millisecond)
	_, err := io.WriteString(c, "ok")
	return err == nil
}

// TestPassiveHealth: what the passive health checks count, show and avoid is the same both ways.
func TestPassiveHealth(t *testing.T) {
	var b blocks
	names := nameServer(t, "1")
	numbers := make([]int, len(illnesses))
	addresses := make(map[way][]string) // of the bad handlers
	asked := map[way][]atomic.Int64{directly: make([]atomic.Int64, len(illnesses)), throughCaddy: make([]atomic.Int64, len(illnesses))}
	masks := make(map[string]string)
	for i, ill := range illnesses {
		of := make(map[way]string)
		for _, w := range ways {
			bad := refusing(t)
			if ill.bad != nil {
				bad = acting(t, func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
					if n := asked[w][i].Add(1); n == 1 && ill.first != nil {
						return ill.first(c, in, r)
					}
					return ill.bad(c, in, r)
				})
			}
			addresses[w] = append(addresses[w], bad)
			masks[bad] = "BAD"
			of[w] = bad
			if !ill.alone {
				well := acting(t, answers("200 OK"))
				masks[well] = "WELL"
				of[w] += " " + well
			}
			if strings.Contains(ill.options, "UPSTREAM") {
				_, of[w], _ = strings.Cut(bad, ":")
			}
		}
		options := ill.options + "\nfail_duration 1m"
		if !strings.Contains(options, "lb_policy") {
			options += "\nlb_policy first"
		}
		inside := ill.inside
		if inside == "" {
			inside = "deliver {\nattempt_timeout 5s\n}"
		}
		numbers[i] = b.add("", "", inside, of, strings.ReplaceAll(options, "NAMES", names))
	}
	e := edgetest.Start(t, strings.Replace(edgetest.SiteWith("", b.routes[""]), "admin off", "admin 127.0.0.1:PORT1", 1))
	admin := "127.0.0.1:" + e.More[0]
	wantWays(t, e)
	var posting sync.WaitGroup
	for _, w := range ways {
		for i, ill := range illnesses {
			posting.Go(func() {
				for n := range ill.turns() {
					e.Send(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook", e.Port, w, numbers[i]), strings.NewReader(edgetest.Numbered(w.markOf(i, n))))
				}
			})
		}
	}
	posting.Wait()
	shown := upstreamsOf(t, admin)
	records := make(map[string]string)
	for _, r := range e.Logs.Records(t) {
		if id := r.Text("id"); r.Text("outcome") != "" {
			records[id] = masked(fmt.Sprintln(r.Text("outcome"), r.Text("reason"), r.Text("handler"), r["tried"]), masks)
		}
	}
	for i, ill := range illnesses {
		t.Run(ill.name, func(t *testing.T) {
			got := make(map[way]string)
			for _, w := range ways {
				if n := int(asked[w][i].Load()); n != ill.asked {
					t.Errorf("way %c: the bad handler was asked %d times, want %d", w, n, ill.asked)
				}
				if up := shown[addresses[w][i]]; up.Fails != ill.fails || up.Requests != 0 {
					t.Errorf("way %c: %+v, want %d fails", w, up, ill.fails)
				}
				for n := range ill.turns() {
					record, there := records[w.markOf(i, n)]
					if !there {
						t.Errorf("way %c: no record of notification %d", w, n)
					}
					got[w] += record
				}
			}
			if got[directly] != got[throughCaddy] && !ill.chance {
				t.Errorf("directly\n%sthrough Caddy\n%s", got[directly], got[throughCaddy])
			}
		})
	}
}

func (ill *illness) turns() int {
	if ill.posts == 0 {
		return 4
	}
	return ill.posts
}

// masked replaces addresses by their names, and errors by the words that both ways have for them.
func masked(text string, masks map[string]string) string {
	var pairs []string
	for _, address := range slices.Sorted(maps.Keys(masks)) {
		pairs = append(pairs, address, masks[address])
	}
	text = times.ReplaceAllString(words.Replace(ofCaddy.ReplaceAllString(text, "")), "(many times)")
	return strings.NewReplacer(pairs...).Replace(text)
}

type upstreamStatus struct {
	Address  string `json:"address"`
	Requests int    `json:"num_requests"`
	Fails    int    `json:"fails"`
}

// upstreamsOf returns what Caddy's admin API shows of upstreams, by address.
func upstreamsOf(t *testing.T, admin string) map[string]upstreamStatus {
	t.Helper()
	var all []upstreamStatus
	if err := json.Unmarshal([]byte(edgetest.ReadAllOf(t, "http://"+admin+"/reverse_proxy/upstreams")), &all); err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]upstreamStatus)
	for _, up := range all {
		shown[up.Address] = up
	}
	return shown
}

// TestFullBothWays: a handler that has as many notifications as it may have gets no other, whichever ways they go.
func TestFullBothWays(t *testing.T) {
	type row struct {
		name         string
		busy, asking way
		first, then  int // the blocks
		began, goOn  chan struct{}
		full, free   string
		asked        atomic.Int64 // of the full one
	}
	var b blocks
	var rows []*row
	for _, policy := range []string{"first", "green_api", "green_api chat", "round_robin", "random", "ip_hash"} {
		for _, busy := range ways {
			for _, asking := range ways {
				r := &row{name: fmt.Sprintf("%s, %c then %c", policy, busy, asking), busy: busy, asking: asking, began: make(chan struct{}), goOn: make(chan struct{})}
				r.full = acting(t, func(c net.Conn, in *bufio.Reader, request *http.Request) bool {
					if r.asked.Add(1) == 1 {
						close(r.began)
						<-r.goOn
					}
					return answers("200 OK")(c, in, request)
				})
				r.free = acting(t, answers("200 OK"))
				r.first = b.add("", "", "", map[way]string{directly: r.full, throughCaddy: r.full}, "unhealthy_request_count 1")
				both := r.full + " " + r.free
				r.then = b.add("", "", "", map[way]string{directly: both, throughCaddy: both}, "unhealthy_request_count 1\nlb_policy "+policy)
				rows = append(rows, r)
			}
		}
	}
	e := edgetest.Start(t, edgetest.SiteWith("", b.routes[""]))
	wantWays(t, e)
	post := func(w way, block, row, n int) {
		if answer := e.Send(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook", e.Port, w, block), strings.NewReader(edgetest.Numbered(w.markOf(row, n)))); answer.StatusCode != 200 {
			t.Errorf("%s: status %d", rows[row].name, answer.StatusCode)
		}
	}
	var posting sync.WaitGroup
	for i, r := range rows {
		posting.Go(func() {
			var first sync.WaitGroup
			first.Go(func() { post(r.busy, r.first, i, 0) })
			<-r.began
			for n := range 3 {
				post(r.asking, r.then, i, n+1)
			}
			if n := r.asked.Load(); n != 1 {
				t.Errorf("%s: a full handler was asked %d times", r.name, n-1)
			}
			close(r.goOn)
			first.Wait()
		})
	}
	posting.Wait()
	for _, record := range e.Logs.Records(t) {
		if record.Text("outcome") != "" && (record.Text("outcome") != "delivered" || record.Text("attempts") != "1") {
			t.Errorf("%v", record)
		}
	}
}

// TestForgiven: after fail_duration, a handler's failures are forgotten, and it is asked again.
func TestForgiven(t *testing.T) {
	var b blocks
	addresses := make(map[way]string)
	for _, w := range ways {
		addresses[w] = acting(t, inTurn(says("").thenCloses(), answers("200 OK")))
	}
	n := b.add("", "", "deliver {\ntimeout 2s\nattempt_timeout 1s\nsecond_opinion 0\n}", addresses, "lb_policy first\nmax_fails 1\nfail_duration 1s")
	e := edgetest.Start(t, strings.Replace(edgetest.SiteWith("", b.routes[""]), "admin off", "admin 127.0.0.1:PORT1", 1))
	admin := "127.0.0.1:" + e.More[0]
	post := func(w way, turn int) int {
		return e.Send(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook", e.Port, w, n), strings.NewReader(edgetest.Numbered(w.markOf(0, turn)))).StatusCode
	}
	for _, w := range ways {
		if status := post(w, 0); status != 502 {
			t.Errorf("way %c: status %d", w, status)
		}
		if fails := upstreamsOf(t, admin)[addresses[w]].Fails; fails != 1 {
			t.Errorf("way %c: %d fails", w, fails)
		}
	}
	for _, w := range ways {
		edgetest.Eventually(t, "forgiven", func() bool { return upstreamsOf(t, admin)[addresses[w]].Fails == 0 })
		if status := post(w, 1); status != 200 {
			t.Errorf("way %c: status %d", w, status)
		}
	}
}
