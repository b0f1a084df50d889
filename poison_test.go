package greenapi

import (
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

// TestChaosPoison: one body kills each handler that it meets, or is refused by all. It goes into
// the quarantine, and the other instances do not notice.
func TestChaosPoison(t *testing.T) {
	for _, mode := range []string{"break", "422"} {
		t.Run(mode, func(t *testing.T) {
			l := edgetest.NewLedger(t)
			handlers := l.Fleet(3)
			poison := fmt.Sprintf("%d-%06d", edgetest.ChaosInstance, 10)
			for _, f := range handlers {
				f.Does(func(body []byte) string {
					if edgetest.MarkOf(body) == poison {
						return mode
					}
					return "200"
				})
			}
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy"+edgetest.Addresses(handlers)))
			var worst float64
			report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), hurry)
			for _, record := range e.Logs.Records(t) {
				if duration, ok := record["duration"].(float64); ok && record.Text("instance") != strconv.Itoa(edgetest.ChaosInstance) {
					worst = max(worst, duration)
				}
			}
			e.Kept()
			l.Verify(e.Dir, report)
			if report.Resent != 2 || l.Taken[poison] != 0 {
				t.Errorf("the poison was re-sent %d times, want 2, and taken %d times", report.Resent, l.Taken[poison])
			}
			if worst > 1 {
				t.Errorf("another instance waited %.3f s", worst)
			}
		})
	}
}
