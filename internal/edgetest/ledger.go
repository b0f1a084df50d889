package edgetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// ChaosInstance is the id of the first instance that sends.
const ChaosInstance = 1101000001

const chaosPause = 60 * time.Millisecond

// A Ledger has what was sent, taken and answered, by the mark that each notification bears.
type Ledger struct {
	t *testing.T

	mu           sync.Mutex
	Sent         map[string][]byte
	acknowledged map[string]bool
	Taken        map[string]int       // answered 2xx by a handler, so many times
	first        map[string]time.Time // and first then
	Other        map[string]int       // answers that are not 200
}

func NewLedger(t *testing.T) *Ledger {
	return &Ledger{
		t: t, Sent: make(map[string][]byte), acknowledged: make(map[string]bool), Taken: make(map[string]int),
		first: make(map[string]time.Time), Other: make(map[string]int),
	}
}

// Queues are instances that send every type until the end, or count notifications if that is not 0.
// One in fifty is broken.
func (l *Ledger) Queues(instances, count int, end time.Time) []sender.Queue {
	examples := notification.Examples()
	queues := make([]sender.Queue, instances)
	for i := range queues {
		id := strconv.Itoa(ChaosInstance + i)
		queues[i] = sender.Queue{Instance: id, Notifications: l.notifications(examples, id, count, end)}
	}
	return queues
}

func (l *Ledger) notifications(examples []notification.Example, instance string, count int, end time.Time) iter.Seq[sender.Notification] {
	return func(yield func(sender.Notification) bool) {
		number, err := strconv.Atoi(instance)
		if err != nil {
			l.t.Error(err)
		}
		for i := 0; i != count || count == 0; i++ {
			if count == 0 && time.Now().After(end) {
				return
			}
			mark := fmt.Sprintf("%s-%06d", instance, i)
			body := notification.Personalize(examples[i%len(examples)].Body, instance, "CHAOS"+mark, time.Now())
			if (i+number-ChaosInstance)%50 == 49 {
				body = []byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":` + instance + `}}`)
			}
			body = append(body[:len(body)-1], `,"mark":"`+mark+`"}`...)
			l.mu.Lock()
			l.Sent[mark] = body
			l.mu.Unlock()
			if !yield(sender.Notification{Name: mark, Body: body}) {
				return
			}
		}
	}
}

func MarkOf(body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte(`"mark":"`))
	mark, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(mark)
}

// take writes down that a handler takes a body. It must be whole.
func (l *Ledger) take(body []byte, at time.Time) {
	mark := MarkOf(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !bytes.Equal(l.Sent[mark], body) {
		l.t.Errorf("a handler got what nobody sent: %q", body)
		return
	}
	if l.Taken[mark]++; l.Taken[mark] == 1 {
		l.first[mark] = at
	}
}

func (l *Ledger) attempt(a sender.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Acknowledged() {
		l.acknowledged[a.Notification.Name] = true
		return
	}
	answer := strconv.Itoa(a.Status)
	if a.Err != nil {
		answer = "none: " + a.Err.Error()
		if i := strings.LastIndex(answer, ": "); i > 0 {
			answer = "none: " + answer[i+2:]
		}
	}
	l.Other[answer]++
}

// Verify is what must hold whatever happened.
func (l *Ledger) Verify(dir string, report *sender.Report) {
	l.t.Helper()
	kept := make(map[string][]byte)
	for _, entry := range ReadQuarantineWhole(l.t, dir) {
		kept[MarkOf(entry.Body)] = entry.Body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, undelivered := 0, 0
	for mark := range l.acknowledged {
		if l.Taken[mark] == 0 && !bytes.Equal(kept[mark], l.Sent[mark]) {
			lost++
		}
	}
	for mark := range l.Sent {
		if l.Taken[mark] == 0 && kept[mark] == nil {
			undelivered++
		}
	}
	again := 0
	for _, n := range l.Taken {
		again += n - 1
	}
	if lost > 0 || undelivered > 0 || report.Lost > 0 || len(l.acknowledged) != len(l.Sent) || len(l.Sent) == 0 {
		l.t.Errorf("%d acknowledged and nowhere, %d nowhere, %d given up, %d of %d acknowledged", lost, undelivered, report.Lost, len(l.acknowledged), len(l.Sent))
	}
	before := ""
	for _, mark := range slices.Sorted(maps.Keys(l.first)) { // of an instance, in order
		instance, _, _ := strings.Cut(mark, "-")
		if strings.HasPrefix(before, instance) && l.first[mark].Before(l.first[before]) {
			l.t.Errorf("%s was taken before %s", mark, before)
		}
		before = mark
	}
	l.t.Logf("%d sent, %d taken by handlers, %d of them again, %d in the quarantine; re-sent %d, other answers %v; from first attempt to 200: p50 %s, p99 %s, at most %s",
		len(l.Sent), len(l.Taken), again, len(kept), report.Resent, l.Other, report.Quantile(0.5).Round(time.Microsecond), report.Quantile(0.99).Round(time.Microsecond), report.Quantile(1).Round(time.Microsecond))
}

// Unnoticed is what must hold as long as a handler is healthy.
func (l *Ledger) Unnoticed(report *sender.Report, p99 time.Duration) {
	l.t.Helper()
	if report.Resent > 0 || len(l.Other) > 0 {
		l.t.Errorf("%d re-sent, other answers than 200: %v", report.Resent, l.Other)
	}
	if got := report.Quantile(0.99); got > p99 {
		l.t.Errorf("p99 from the first attempt to 200: %s, want at most %s", got, p99)
	}
}

// Send runs the sender until the queues are empty, and keeps something else going meanwhile.
func (l *Ledger) Send(options sender.Options, queues []sender.Queue, meanwhile func(context.Context)) *sender.Report {
	l.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		if meanwhile != nil {
			meanwhile(ctx)
		}
	}()
	options.Pause = max(options.Pause, chaosPause)
	options.OnAttempt = l.attempt
	options.Token = Token
	ctx2, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	report, err := sender.Run(ctx2, options, queues...)
	stop()
	<-over
	if err != nil {
		l.t.Fatal(err)
	}
	return report
}

// Pauses waits, and reports whether to go on.
func Pauses(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ChaosLength is how long each of them goes on. `make chaos` sets it to a minute.
func ChaosLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("GREEN_API_CHAOS")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ChaosOptions(e *Edge) sender.Options { return sender.Options{URL: e.URL, Rate: 50} }
