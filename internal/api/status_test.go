package api

import (
	"reflect"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// TestStandingOf: of the queue, the lanes stand still whose first notification has failed.
func TestStandingOf(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	refused := []queue.Answer{{Handler: "h:1", Error: "refused"}, {Handler: "h:2", Status: 422, Text: "no chat 79001234567"}}
	got := StandingOf([]queue.Lane{
		{ID: "a", Instance: "1101000001", State: queue.StateWaiting, Oldest: at},
		{ID: "b", Block: "sales", Instance: "1101000002", Chat: "79001234567@c.us", State: queue.StateWaiting, Round: 3, Since: at, Next: at.Add(time.Minute), Why: "handler_refused", Answers: refused},
		{ID: "c", Instance: "1101000003", State: queue.StateDelivering, Round: 1, Since: at, Why: "not_now", Answers: refused[:1]},
		{ID: "d", Instance: "1101000004", State: queue.StateWaiting, Round: 1, Oldest: at, Next: at, Why: "not_now"},
		{ID: "e", Instance: "1101000005", State: queue.StatePaused, Round: 1, Since: at},
	})
	want := []Standing{
		{Instance: "1101000002", Name: "sales", Lane: "b", Since: at, Attempts: 3, Reason: "handler_refused", Handler: "h:2", Handlers: []string{"h:1", "h:2"}, Said: "422", Next: at.Add(time.Minute)},
		{Instance: "1101000003", Lane: "c", Since: at, Attempts: 1, Reason: "not_now", Handler: "h:1", Handlers: []string{"h:1"}, Said: "refused", Waiting: true},
		{Instance: "1101000004", Lane: "d", Since: at, Attempts: 1, Reason: "not_now", Handlers: []string{}, Next: at},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}
