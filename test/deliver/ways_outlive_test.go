//go:build unix

package deliver

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestOutliveBothWays: an attempt that has begun outlives the sender's connection, and the config. Its connection is
// closed afterwards, as nothing would use it again.
func TestOutliveBothWays(t *testing.T) {
	for _, name := range []string{"the sender hangs up", "the config is reloaded"} {
		t.Run(name, func(t *testing.T) {
			var b blocks
			began, goOn := map[way]chan struct{}{}, make(chan struct{})
			release := sync.OnceFunc(func() { close(goOn) })
			defer release()
			var closed sync.WaitGroup // the handlers' connections
			addresses := make(map[way]string)
			for _, w := range ways {
				began[w] = make(chan struct{})
				closed.Add(1)
				addresses[w] = connected(t, new(connections), func(c net.Conn, in *bufio.Reader) {
					defer closed.Done()
					new(connections).repeating(func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
						close(began[w])
						<-goOn
						return answers("200 OK")(c, in, r)
					})(c, in)
				})
			}
			n := b.add("", "", "", addresses, "")
			e := edgetest.Start(t, edgetest.SiteWith("", b.routes[""]))
			wantWays(t, e)
			var posting sync.WaitGroup
			for _, w := range ways {
				url := fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook", e.Port, w, n)
				if name == "the sender hangs up" {
					own := *e
					own.URL = url
					own.HangUpAfter(edgetest.Numbered(w.markOf(0, 0)), began[w])
					continue
				}
				posting.Go(func() {
					if answer := e.Send(http.MethodPost, url, strings.NewReader(edgetest.Numbered(w.markOf(0, 0)))); answer.StatusCode != 200 {
						t.Errorf("way %c: status %d", w, answer.StatusCode)
					}
				})
				<-began[w]
			}
			if name == "the config is reloaded" {
				if err := e.Load(edgetest.SiteWith("", "respond 404")); err != nil {
					t.Fatal(err)
				}
			}
			release()
			posting.Wait()
			edgetest.Eventually(t, "records", func() bool { return strings.Count(e.Logs.All(), `"outcome":"delivered"`) == len(ways) })
			for _, record := range e.Logs.Records(t) {
				if record.Text("outcome") != "" && record.Text("attempts") != "1" {
					t.Errorf("%v", record)
				}
			}
			if name == "the config is reloaded" {
				closed.Wait()
			}
		})
	}
}
