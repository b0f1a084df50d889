package edgetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
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

// ChaosInstance is the ID of the first instance that sends.
const ChaosInstance = 1101000001

const chaosPause = 60 * time.Millisecond

// A Ledger records what was sent, taken and answered, by each notification's mark.
type Ledger struct {
	t *testing.T

	mu           sync.Mutex
	Sent         map[string][]byte
	acknowledged map[string]bool
	Taken        map[string]int       // how often a handler answered 2xx
	first        map[string]time.Time // when it first did
	life         int                  // of the edge
	last         map[string]int       // the life in which it last did
	sameLife     map[string]int       // how often it did again in the same life
	attempts     map[string]int       // how often the sender sent it
	chats        map[string]string    // of each one that ChatQueues made
	Other        map[string]int       // answers other than 200
}

func NewLedger(t *testing.T) *Ledger {
	return &Ledger{
		t: t, Sent: make(map[string][]byte), acknowledged: make(map[string]bool), Taken: make(map[string]int),
		first: make(map[string]time.Time), Other: make(map[string]int), attempts: make(map[string]int), last: make(map[string]int), sameLife: make(map[string]int), chats: make(map[string]string),
	}
}

// Queues returns instances that send every type until end, or count notifications if count is not 0. One in
// fifty is broken.
func (l *Ledger) Queues(instances, count int, end time.Time) []sender.Queue {
	examples := notification.Examples()
	return l.queues(instances, count, end, func(i int, instance, mark string) []byte {
		return notification.Personalize(examples[i%len(examples)].Body, instance, "CHAOS"+mark, time.Now())
	})
}

// ChatQueues returns instances that send text messages of that many chats each until end. One in fifty is broken.
func (l *Ledger) ChatQueues(instances, chats int, end time.Time) []sender.Queue {
	return l.queues(instances, 0, end, func(_ int, instance, mark string) []byte {
		chat := strconv.Itoa(79990000000 + rand.IntN(chats))
		l.mu.Lock()
		l.chats[mark] = instance + " " + chat
		l.mu.Unlock()
		return []byte(strings.NewReplacer("1101000001", instance, "3EB0C767D097B7C7C030", "CHAOS"+mark, "79001234568", chat).Replace(TextMessage))
	})
}

func (l *Ledger) queues(instances, count int, end time.Time, bodyOf func(i int, instance, mark string) []byte) []sender.Queue {
	queues := make([]sender.Queue, instances)
	for i := range queues {
		id := strconv.Itoa(ChaosInstance + i)
		queues[i] = sender.Queue{Instance: id, Notifications: l.notifications(i, id, count, end, bodyOf)}
	}
	return queues
}

func (l *Ledger) notifications(number int, instance string, count int, end time.Time, bodyOf func(i int, instance, mark string) []byte) iter.Seq[sender.Notification] {
	return func(yield func(sender.Notification) bool) {
		for i := 0; i != count || count == 0; i++ {
			if count == 0 && time.Now().After(end) {
				return
			}
			mark := fmt.Sprintf("%s-%06d", instance, i)
			body := bodyOf(i, instance, mark)
			isBroken := (i+number)%50 == 49
			if isBroken {
				body = []byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":` + instance + `}}`)
			}
			body = append(body[:len(body)-1], `,"mark":"`+mark+`"}`...)
			l.mu.Lock()
			if isBroken {
				delete(l.chats, mark)
			}
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

// take records that a handler takes a body, which must be complete.
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
	} else if l.last[mark] == l.life {
		l.sameLife[mark]++
	}
	l.last[mark] = l.life
}

// NextLife notes that the edge has ended, and that what handlers take from now on is from the next one.
func (l *Ledger) NextLife() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life++
}

func (l *Ledger) attempt(a sender.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts[a.Notification.Name] = a.Number
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

// Counts are what became of the notifications of a ledger.
type Counts struct {
	Taken int // by handlers
	Kept  int // in the quarantine
	Again int // times that a handler took one that a handler had taken
	Once  int // of these times, for those that the sender sent once
	Alive int // of these, without an end of the edge in between
}

// ByInstance is the order that a sender keeps.
func (l *Ledger) ByInstance(mark string) string {
	instance, _, _ := strings.Cut(mark, "-")
	return instance
}

// ByChat is the order that a queue keeps for each chat. Those of an instance that name no chat, as broken ones, are in
// order, too: validate passes them on when there are so many that the format may have changed.
func (l *Ledger) ByChat(mark string) string { return cmp.Or(l.chats[mark], l.ByInstance(mark)) }

// Verify checks what must hold whatever happened.
func (l *Ledger) Verify(dir string, report *sender.Report) Counts {
	l.t.Helper()
	return l.VerifyBy(dir, report, l.ByInstance)
}

// VerifyBy is Verify where only those are in order for which key says the same.
func (l *Ledger) VerifyBy(dir string, report *sender.Report, key func(mark string) string) (c Counts) {
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
	c.Taken, c.Kept = len(l.Taken), len(kept)
	for mark, n := range l.Taken {
		c.Again += n - 1
		if l.attempts[mark] == 1 {
			c.Once += n - 1
			c.Alive += l.sameLife[mark]
		}
	}
	if lost > 0 || undelivered > 0 || report.Lost > 0 || len(l.acknowledged) != len(l.Sent) || len(l.Sent) == 0 {
		l.t.Errorf("%d acknowledged and nowhere, %d nowhere, %d given up, %d of %d acknowledged", lost, undelivered, report.Lost, len(l.acknowledged), len(l.Sent))
	}
	before := make(map[string]string)
	for _, mark := range slices.Sorted(maps.Keys(l.first)) { // of an instance, in order
		of := key(mark)
		if earlier, has := before[of]; has && l.first[mark].Before(l.first[earlier]) { // some handlers tell no date
			l.t.Errorf("%s was taken before %s", mark, before[of])
		}
		before[of] = mark
	}
	l.t.Logf("%d sent, %d taken by handlers, %d of them again, %d in the quarantine; re-sent %d, other answers %v; from first attempt to 200: p50 %s, p99 %s, at most %s",
		len(l.Sent), c.Taken, c.Again, c.Kept, report.Resent, l.Other, report.Quantile(0.5).Round(time.Microsecond), report.Quantile(0.99).Round(time.Microsecond), report.Quantile(1).Round(time.Microsecond))
	return c
}

// Unnoticed checks what must hold as long as one handler is healthy.
func (l *Ledger) Unnoticed(report *sender.Report, p99 time.Duration) {
	l.t.Helper()
	if report.Resent > 0 || len(l.Other) > 0 {
		l.t.Errorf("%d re-sent, other answers than 200: %v", report.Resent, l.Other)
	}
	if got := report.Quantile(0.99); got > p99 {
		l.t.Errorf("p99 from the first attempt to 200: %s, want at most %s", got, p99)
	}
}

// Send runs the sender until the queues are empty, and meanwhile in the background.
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

// ChaosLength is how long each chaos test runs. `make proofs` sets it to 5 seconds, `make chaos` to a minute.
func ChaosLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("GREEN_API_CHAOS")
	if text == "" {
		return time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ChaosOptions(e *Edge) sender.Options { return sender.Options{URL: e.URL, Rate: 50} }
