package traps

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/command"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// TestCircle goes the whole way round: an instance is pointed at the edge from the command line and
// posts; then its URL is cleared and it is received; then it posts again. All the time new
// notifications come. None is lost or out of order.
func TestCircle(t *testing.T) {
	edgetest.Proof(t)
	const instance = "1101000001"
	// 5 minutes until settings are in force are 250 ms, and 60 s of pause 50 ms.
	v := edgetest.NewVendor(t, standin.Options{Scale: 1200}, instance)
	handlers := []*edgetest.Upstream{edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ndeduplicate 10m\n}\n"+v.Receives(instance)+
		"reverse_proxy "+handlers[0].Address+" "+handlers[1].Address+" {\nlb_policy green_api chat\n}"))
	t.Setenv("GREEN_API_API_TOKEN", edgetest.APIToken)
	commands := command.New(command.Config{
		Resolve: func(text string) (string, error) { return text, nil },
		Pause:   func(ctx context.Context, d time.Duration) bool { return edgetest.Pauses(ctx, d/50) },
	})
	set := func(args ...string) {
		t.Helper()
		out, problems, code := edgetest.RunCommandOf(t, commands, "", "", append([]string{"green-api", "settings", "set", instance, "--api-url", v.URL, "--wait"}, args...)...)
		if code != 0 || strings.Contains(out+problems, edgetest.APIToken) || strings.Contains(out+problems, edgetest.Token) {
			t.Fatalf("exit status %d: %s%s", code, out, problems)
		}
	}
	// came is how many were delivered, by the way they came.
	came := func() (posted, received int) {
		for _, record := range e.Logs.Records(t) {
			if record.Text("outcome") != "delivered" {
				continue
			}
			if record.Text("via") == "http_api" {
				received++
			} else {
				posted++
			}
		}
		return posted, received
	}

	stop := make(chan struct{})
	var want []string
	var queueing sync.WaitGroup
	queueing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				body := edgetest.NotificationOf(instance, len(want))
				v.Notify(instance, body)
				want = append(want, string(body))
			}
		}
	})
	edgetest.Eventually(t, "some to be received", func() bool { _, received := came(); return received > 10 })
	set("--url", e.URL, "--token", edgetest.Token)
	edgetest.Eventually(t, "some to be posted", func() bool { posted, _ := came(); return posted > 10 })
	before, _ := came()
	_, receivedBefore := came()
	set("--url", "")
	edgetest.Eventually(t, "some to be received again", func() bool { _, received := came(); return received > receivedBefore+10 })
	set("--url", e.URL)
	edgetest.Eventually(t, "some to be posted again", func() bool { posted, _ := came(); return posted > before+10 })
	close(stop)
	queueing.Wait()
	edgetest.Eventually(t, "the queue to be empty", func() bool { return v.Queued(instance) == 0 })

	// All are of one chat, so that one handler has them all.
	got := handlers[0]
	if len(got.Requests()) == 0 {
		got = handlers[1]
	}
	got.WantTaken(t, want)
	posted, received := came()
	t.Logf("%d posted, %d received", posted, received)
}
