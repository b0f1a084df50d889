package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestKill9: whenever the process is killed, it starts again, and what was answered 200 is in the
// quarantine or with a handler. `make crash` kills it a hundred times.
func TestKill9(t *testing.T) {
	t.Parallel() // it is a process of its own
	rounds := 3
	if text := os.Getenv("GREEN_API_CRASHES"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	acknowledged, taken := make(map[string]bool), make(map[string]bool)
	handler := edgetest.NewUpstream(t, 200, nil)
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	config := edgetest.Site(edgetest.Loopback + "validate {\ndrift_guard off\n}\nreverse_proxy " + handler.Address)
	send := func(mark, body string) bool {
		r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return false
		}
		r.Header.Set("Authorization", "Bearer "+edgetest.Token)
		response, err := edgetest.Client.Do(r)
		if err != nil {
			return false // killed
		}
		response.Body.Close()
		mu.Lock()
		defer mu.Unlock()
		acknowledged[mark] = response.StatusCode == 200
		return true
	}
	for round := range rounds {
		p := edgetest.StartProcess(t, e, config)
		moment := rand.N(200 * time.Millisecond)
		time.AfterFunc(moment, func() { p.Process.Kill() })
		var workers sync.WaitGroup
		for worker := range 4 {
			workers.Go(func() {
				for n, goesOn := 0, true; goesOn; n++ {
					mark := fmt.Sprintf("R%d-W%d-%d", round, worker, n)
					body := edgetest.Broken(mark)
					if n%2 == 0 {
						body = strings.Replace(edgetest.TextMessage, "3EB0C767D097B7C7C030", mark, 1)
					}
					goesOn = send(mark, body)
				}
			})
		}
		workers.Wait()
		p.Wait()
		// And while it starts.
		starting := edgetest.Command(t, "run", "--config", p.File)
		if err := starting.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(300 * time.Millisecond))
		starting.Process.Kill()
		starting.Wait()
	}
	kept := make(map[string]bool)
	for _, entry := range edgetest.ReadQuarantineWhole(t, e.Dir) {
		kept[entry.NotificationID] = true
	}
	for _, got := range handler.Requests() {
		n, err := notification.Parse([]byte(got.Body))
		if err != nil {
			t.Fatal(err)
		}
		taken[n.ID] = true
	}
	if len(acknowledged) < rounds { // usually some hundreds a round
		t.Fatalf("only %d acknowledged", len(acknowledged))
	}
	for mark, ok := range acknowledged {
		if !ok || !kept[mark] && !taken[mark] {
			t.Errorf("%s: answered 200: %t, kept: %t, taken: %t", mark, ok, kept[mark], taken[mark])
		}
	}
	t.Logf("killed %d times under load and %d times at its start; %d acknowledged, %d kept, %d taken", rounds, rounds, len(acknowledged), len(kept), len(taken))
}
