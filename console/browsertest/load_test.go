package browsertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/tracing"
	"github.com/chromedp/chromedp"
)

// outcomes asks the metrics of an edge how many requests ended in which way.
func (e *edge) outcomes() map[string]int {
	e.t.Helper()
	response, err := http.Get(e.origin + "/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	sample := regexp.MustCompile(`^caddy_green_api_notifications_total\{.*outcome="(\w+)".*\} (\d+)$`)
	counts := make(map[string]int)
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if found := sample.FindStringSubmatch(lines.Text()); found != nil {
			n, err := strconv.Atoi(found[2])
			if err != nil {
				e.t.Fatal(err)
			}
			counts[found[1]] += n
		}
	}
	if err := lines.Err(); err != nil {
		e.t.Fatal(err)
	}
	return counts
}

// load posts the bodies that next returns, at a rate if it is not 0, until there are none. It returns how many got no 200.
func (e *edge) load(rate int, next func(i int) (body string, more bool)) int {
	e.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	bodies := make(chan string)
	var refused atomic.Int64
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for body := range bodies {
				r, err := http.NewRequest(http.MethodPost, e.origin+"/green-api/webhook", strings.NewReader(body))
				if err != nil {
					panic(err)
				}
				r.Header.Set("Authorization", "Bearer "+edgeToken)
				r.Header.Set("Content-Type", "application/json; charset=utf-8")
				response, err := client.Do(r)
				if err != nil {
					refused.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, response.Body) // only its status counts
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					refused.Add(1)
				}
			}
		})
	}
	began, sent := time.Now(), 0
	for i := 0; ; i++ {
		body, more := next(i)
		if !more {
			break
		}
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate)))) // the pace is what is tried
		}
		bodies <- body
		sent++
	}
	close(bodies)
	workers.Wait()
	e.t.Logf("%.0f notifications a second", float64(sent)/time.Since(began).Seconds())
	return int(refused.Load())
}

// tasks begins to measure what the page does, until end returns how much of a CPU each of its tasks took, the longest
// first. That is what a task costs, whatever else the machine does: by the clock, it has to wait for edge and sender.
func (p *tab) tasks() (end func() []time.Duration) {
	p.t.Helper()
	type thread struct{ Process, Thread int64 }
	var mu sync.Mutex
	spent := make(map[thread][]time.Duration)
	pages := make(map[thread]bool)
	complete := make(chan struct{})
	hear := func(event any) {
		switch e := event.(type) {
		case *tracing.EventDataCollected:
			mu.Lock()
			defer mu.Unlock()
			for _, text := range e.Value {
				var one struct {
					Name     string
					Pid, Tid int64
					Tdur     float64 // in microseconds
					Args     struct{ Name string }
				}
				if err := json.Unmarshal(text, &one); err != nil {
					continue // args of another form
				}
				switch at := (thread{one.Pid, one.Tid}); {
				case one.Name == "thread_name" && one.Args.Name == "CrRendererMain":
					pages[at] = true
				case one.Name == "ThreadControllerImpl::RunTask":
					spent[at] = append(spent[at], time.Duration(one.Tdur)*time.Microsecond)
				}
			}
		case *tracing.EventTracingComplete:
			close(complete)
		}
	}
	if err := chromedp.Listen(p.ctx, hear); err != nil {
		p.t.Fatal(err)
	}
	p.do(command(tracing.Start, tracing.StartParams{TransferMode: "ReportEvents", TraceConfig: &tracing.TraceConfig{IncludedCategories: []string{"toplevel"}}}))
	return func() (all []time.Duration) {
		p.t.Helper()
		p.do(command(tracing.End, cdp.Empty{}))
		select {
		case <-complete:
		case <-time.After(patience):
			p.t.Fatal("no end of the trace")
		}
		mu.Lock()
		defer mu.Unlock()
		for at := range pages {
			all = append(all, spent[at]...)
		}
		slices.Sort(all)
		slices.Reverse(all)
		return all
	}
}

// watch begins to watch how many rows there are.
const watch = `(() => {
	window.seen = {most: 0, changes: 0};
	const look = () => {
		window.seen.changes++;
		window.seen.most = Math.max(window.seen.most, document.querySelectorAll('main tbody tr').length);
	};
	new MutationObserver(look).observe(document.body, {childList: true, characterData: true, subtree: true});
	return true;
})()`

// sums is what the page says has ended, by outcome.
const sums = `Object.fromEntries([...document.querySelectorAll('.chart .legend li')].map((li) =>
	[li.querySelector('.outcome').className.split(' ').at(-1), Number(li.querySelector('b').textContent.replace(/\D/g, ''))]))`

// TestLoad: with a thousand a second, the sums on the page are those of the metrics, and the page stays small and quick.
func TestLoad(t *testing.T) {
	h := startHandler(t)
	e := startEdge(t, strings.Replace(oneSite, "\tlog\n", "", 1), "HANDLERS", h.address())
	c, p := openConsole(t, e)
	p.await(isLive)
	p.screen("#/live")
	const drawn = "document.querySelectorAll('main[data-screen=live] tbody tr').length"
	seconds := 20
	if full() {
		seconds = 60
	}
	for range 40 { // the table is there
		e.post(message(1101000001, "79001234567", "Hello"))
	}
	p.await(drawn + " === 32") // of a window of 900 px
	eval[bool](p, watch)
	end := p.tasks()
	const rate = 1000
	failed := e.load(rate, func(i int) (string, bool) {
		if i%200 == 0 {
			return `{"typeWebhook":"incomingMessageReceived"`, i < rate*seconds
		}
		return message(1101000001+i%20, fmt.Sprintf("7900%07d", i%1000), "Hello"), i < rate*seconds
	})
	if failed > 0 {
		t.Errorf("%d were not answered 200", failed)
	}
	const slower = 4 // the computer of somebody who looks
	tasks := end()
	seen := eval[struct{ Most, Changes int }](p, "window.seen")
	if len(tasks) < seconds {
		t.Fatalf("%d tasks", len(tasks))
	}
	t.Logf("at most %d rows; of %d tasks, the longest ones took %s: multiply by %d for a computer that is as much slower", seen.Most, len(tasks), tasks[:8], slower)
	if longest := slower * tasks[len(tasks)/1000]; full() && longest > 50*time.Millisecond { // one in a thousand is the machine's
		t.Errorf("tasks of %s", longest)
	}
	if seen.Most == 0 || seen.Most > 500 || seen.Changes < seconds {
		t.Errorf("at most %d rows, %d changes", seen.Most, seen.Changes)
	}

	// What cannot be seen is not drawn, until somebody scrolls there or stops it.
	p.await(drawn + " === 32")
	eval[bool](p, "window.scrollTo(0, document.body.scrollHeight), true")
	p.await(drawn + " > 32")
	p.keys(" ")
	p.await(drawn + " === 500")
	p.keys(" ")
	eval[bool](p, "window.scrollTo(0, 0), true")
	p.await(drawn + " === 32")

	p.screen("#/overview")
	want := e.outcomes()
	if want["delivered"] < rate*seconds/2 || want["quarantined"] < seconds {
		t.Fatalf("metrics: %v", want)
	}
	for outcome, n := range want {
		p.await(fmt.Sprintf("(%s)[%s] === %d", sums, js(outcome), n))
	}
	p.await(isLive)
	p.wantQuiet(c.origin)
}

// TestManyEntries: the first page of a large quarantine comes at once.
func TestManyEntries(t *testing.T) {
	h := startHandler(t)
	e := startEdge(t, strings.Replace(oneSite, "\tlog\n", "", 1), "HANDLERS", h.address())
	entries := 10_000
	if full() {
		entries = 100_000
	}
	e.load(0, func(i int) (string, bool) {
		return fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","number":0%d}`, i), i < entries
	})
	if n := e.entries(); n != entries {
		t.Fatalf("%d entries, want %d", n, entries)
	}
	_, p := openConsole(t, e)
	took := eval[float64](p, `new Promise((done, no) => {
		const began = performance.now();
		setTimeout(no, 30000, 'no row');
		const look = () => document.querySelector('main[data-screen=quarantine] tr[data-id]') ? done(performance.now() - began) : requestAnimationFrame(look);
		location.hash = '#/quarantine';
		look();
	})`)
	t.Logf("of %d entries, the first ones show after %.0f ms", entries, took)
	if most := 1000.0; full() && took > most {
		t.Errorf("they show after %.0f ms, want at most %.0f", took, most)
	}
}
