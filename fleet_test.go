package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestLoadOfOthers: the requests that another block has with a handler count, too.
func TestLoadOfOthers(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	one := edgetest.NewUpstream(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/other") {
			close(began)
			<-goOn
		}
	})
	two := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+one.Address+" "+two.Address+"\n}\n"+
		"green_api /other {\nname other\n"+edgetest.Loopback+"reverse_proxy "+one.Address+"\n}\nrespond 404\n"))
	answer := make(chan int)
	go func() {
		answer <- e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+"/other", strings.NewReader(edgetest.TextMessage)).StatusCode
	}()
	<-began
	for i := range 10 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	close(goOn)
	if status := <-answer; status != 200 {
		t.Errorf("the other block's: status %d", status)
	}
	if n := len(one.Requests()); n != 1 {
		t.Errorf("the busy handler was asked %d times more", n-1)
	}
}
