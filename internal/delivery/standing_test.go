package delivery

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// ofInstance is a notification of an instance.
func ofInstance(instance, body string) *outcome.Case {
	c := caseOf(body)
	c.N = &notification.Notification{Type: "incomingMessageReceived", Instance: instance}
	return c
}

// shows describes who stands still.
func shows(f *Fleet) string {
	var lines []string
	for _, one := range f.Standing() {
		line := fmt.Sprintf("%s for %s, %d, %s, %s, %s", one.Instance[len(one.Instance)-1:], time.Since(one.Since), one.Attempts, one.Reason, one.Handler, one.Said)
		switch {
		case one.Waiting && !one.Next.IsZero():
			line += ", in hand, and yet to come"
		case one.Waiting:
			line += ", in hand"
		default:
			line += ", next in " + time.Until(one.Next).String()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, to, limits := NewFleet(nil), new(told), usual()
		limits.DeadLetter = 0
		send := func(instance, body string, steps ...string) {
			f.Deliver(t.Context(), ofInstance(instance, body), newScript(steps), limits, to.hooks())
		}
		want := func(when, want string) {
			t.Helper()
			if got := shows(f); got != want {
				t.Errorf("%s: %s\nwant %s", when, got, want)
			}
		}
		send("1101000001", "A", "200")
		want("all is well", "")
		send("1101000001", "B", "500")
		want("failed", "1 for 0s, 1, handler_error, handler-0:8080, 500, next in 1m0s")
		time.Sleep(time.Minute)
		go send("1101000002", "C", "503")
		synctest.Wait()
		want("another one waits", "1 for 1m0s, 1, handler_error, handler-0:8080, 500, next in 0s; 2 for 0s, 1, not_now, handler-0:8080, 503, in hand")
		send("1101000001", "B", "422")
		want("failed again", "1 for 1m0s, 2, handler_refused, handler-0:8080, 422, next in 1m0s; 2 for 0s, 1, not_now, handler-0:8080, 503, in hand")
		send("1101000002", "D", "500") // while C is in hand
		want("a second one of an instance", "1 for 1m0s, 2, handler_refused, handler-0:8080, 422, next in 1m0s; 2 for 0s, 1, not_now, handler-0:8080, 503, in hand")
		time.Sleep(3 * time.Minute)
		send("1101000002", "C", "200")
		want("delivered", "1 for 4m0s, 2, handler_refused, handler-0:8080, 422, next in -2m0s")
		send("1101000001", "E", "500") // B has been deleted from the sender's queue
		want("another head", "1 for 0s, 1, handler_error, handler-0:8080, 500, next in 1m0s")
		time.Sleep(time.Minute)
		go send("1101000001", "E", "slow")
		synctest.Wait()
		want("it has come again", "1 for 1m0s, 1, handler_error, handler-0:8080, 500, in hand")
		time.Sleep(11 * time.Second)
		want("taken", "")
		send("1101000001", "F", "500")
		time.Sleep(24*time.Hour - 1)
		want("nothing has come since", "1 for 23h59m59.999999999s, 1, handler_error, handler-0:8080, 500, next in -23h58m59.999999999s")
		time.Sleep(time.Nanosecond)
		want("a day later", "")
	})
}

// TestStandingWaits: what waits for a place, or for a slow handler, stands still after five seconds.
func TestStandingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s, to := NewFleet(nil), newScript([]string{"slow"}), new(told)
		s.handlers = fakePool(1, 1)
		for _, instance := range []string{"1101000001", "1101000002"} {
			go f.Deliver(t.Context(), ofInstance(instance, instance), s, usual(), to.hooks())
			synctest.Wait()
		}
		time.Sleep(4 * time.Second)
		if got := shows(f); got != "" {
			t.Errorf("after 4 s: %s", got)
		}
		time.Sleep(4 * time.Second)
		if got := shows(f); got != "1 for 8s, 0, , handler-0:8080, , in hand; 2 for 8s, 0, not_now, , , in hand" {
			t.Errorf("after 8 s: %s", got)
		}
		time.Sleep(4 * time.Second)
		if got := shows(f); got != "2 for 12s, 0, not_now, , , in hand" {
			t.Errorf("after 12 s: %s", got)
		}
		time.Sleep(time.Minute)
		if got := shows(f); got != "" {
			t.Errorf("in the end: %s", got)
		}
	})
}

// TestStandingKept: what is kept has left the sender's queue, and a full queue of the edge keeps it there.
func TestStandingKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, to, limits := NewFleet(nil), new(told), usual()
		for n, want := range []string{", next in", ", next in", ""} {
			f.Deliver(t.Context(), caseOf("A"), newScript([]string{"500"}), limits, to.hooks())
			if got := shows(f); strings.Contains(got, ", next in") != (want != "") {
				t.Errorf("failure %d: %s", n+1, got)
			}
			f.deadLetters.took("handler-0:8080")
			time.Sleep(time.Minute)
		}
		if len(to.kept) != 1 {
			t.Fatalf("kept %v", to.kept)
		}
		put := func(end outcome.Outcome, why reason.Reason) string {
			f.Accept(t.Context(), caseOf("B"), limits, func() *outcome.Verdict { return &outcome.Verdict{Outcome: end, Reason: why} })
			return shows(f)
		}
		if got := put(outcome.Failed, reason.QueueFull); got != "1 for 0s, 0, queue_full, , , next in 1m0s" {
			t.Errorf("full: %s", got)
		}
		c := caseOf("C")
		c.Via = "api"
		f.Deliver(t.Context(), c, newScript([]string{"500"}), limits, to.hooks())
		if got := f.Standing(); len(got) != 1 || got[0].Waiting || !got[0].Next.IsZero() {
			t.Errorf("received: %+v", got)
		}
		if got := put(outcome.Queued, ""); got != "" {
			t.Errorf("queued: %s", got)
		}
	})
}

// TestStandingSettled: a warning of a slow handler that comes too late says nothing.
func TestStandingSettled(t *testing.T) {
	f := NewFleet(nil)
	slow := f.try(caseOf("A"), usual(), new(told).hooks())
	slow.holds, slow.slow = true, true
	slow.settle(&outcome.Verdict{Outcome: outcome.Delivered})
	f.standing.slow(slow, "handler-0:8080", time.Now())
	if got := f.Standing(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// TestStandingBounded: however many stand still, the memory is bounded, and those that came last are listed.
func TestStandingBounded(t *testing.T) {
	f := NewFleet(nil)
	for n := range maxStanding + 10 {
		f.standing.fail(ofInstance(fmt.Sprint(1101000000+n), "A"), Answer{Result: HandlerError, Status: 500}, f.Clock.Now().wall)
	}
	got := f.Standing()
	if len(got) != maxStanding || got[0].Instance != "1101000010" || len(f.standing.of) != maxStanding {
		t.Errorf("%d, from %s", len(got), got[0].Instance)
	}
}

func TestSaid(t *testing.T) {
	const body = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1700000000,"idMessage":"F7AEC1B7086ECDC7E6E45923F5EDB825",` +
		`"senderData":{"chatId":"79001234567@c.us","senderName":"Иван Петров"},"messageData":{"textMessageData":{"textMessage":"I use Green-API\nto send this message to them"}}}`
	for _, test := range []struct {
		name string
		got  Answer
		want string
	}{
		{"no answer", Answer{Err: errors.New("dial tcp 10.0.0.2:8080: refused\x1b")}, "dial tcp 10.0.0.2:8080: refused?"},
		{"nothing", Answer{}, ""},
		{"status", Answer{Status: 500}, "500"},
		{"first line", Answer{Status: 500, Text: "\n no database\x07\nat line 7"}, "500 no database?"},
		{"type", Answer{Status: 422, Text: "incomingMessageReceived of 1101000001 is unknown, see /a/12.34"}, "422 incomingMessageReceived of … is unknown, see /a/12.34"},
		{"chat", Answer{Status: 500, Text: "no chat 79001234567@c.us"}, "500 no chat …"},
		{"phone", Answer{Status: 500, Text: "no customer +7 900 123-45-67, sorry"}, "500 no customer +…, sorry"},
		{"addresses", Answer{Status: 500, Text: "no way from 192.168.100.200 to 10.0.0.2:5432"}, "500 no way from 192.168.100.200 to 10.0.0.2:5432"},
		{"name", Answer{Status: 500, Text: "no customer Иван Петров"}, "500 no customer …"},
		{"escaped name", Answer{Status: 500, Text: `no customer \u0418\u0432\u0430\u043d Петров`}, "500 no customer …"},
		{"cut text", Answer{Status: 500, Text: "cannot parse 'to send this mess"}, "500 cannot parse '…"},
		{"text with line ends", Answer{Status: 500, Text: "cannot parse I use Green-API\nto send"}, "500 cannot parse …"},
		{"id", Answer{Status: 500, Text: "F7AEC1B7086ECDC7E6E45923F5EDB825 twice"}, "500 … twice"},
	} {
		if got := saidOf(test.got, []byte(body)); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	echo := saidOf(Answer{Status: 500, Text: body}, []byte(body))
	for _, secret := range []string{"7900", "Иван", "Петров", "Green", "message to", "F7AE"} {
		if strings.Contains(echo, secret) {
			t.Errorf("an echo of the body shows %s: %s", secret, echo)
		}
	}
	if got := saidOf(Answer{Status: 500, Text: "no " + strings.Repeat("x", 500)}, []byte("{")); len(got) > outcome.MaxHead+4 {
		t.Errorf("%d bytes", len(got))
	}
}
