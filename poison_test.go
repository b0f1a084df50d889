package greenapi

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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
func TestChaosPoison(t *testing.T) {
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	poison := make(map[string]string) // what handlers make of a body, by its mark
	instances := make(map[string]bool)
	for i, mode := range []string{"break", "422"} {
		poison[fmt.Sprintf("%d-%06d", edgetest.ChaosInstance+i, 10)] = mode
		instances[strconv.Itoa(edgetest.ChaosInstance+i)] = true
	}
	for _, f := range handlers {
		f.Does(func(body []byte) string { return cmp.Or(poison[edgetest.MarkOf(body)], "200") })
	}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy"+edgetest.Addresses(handlers)))
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
