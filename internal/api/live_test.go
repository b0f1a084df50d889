package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// watched is an edge that is looked at over HTTP.
type watched struct {
	*bench
	url string
	end chan struct{}
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	b := &watched{bench: newBench(t), end: make(chan struct{})}
	b.Feed, b.Waiting, b.Ending, b.Streams = live.New(time.Now()), func() int { return 2 }, b.end, new(Streams)
	b.Exiting = func() bool { return false }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := b.live(w, r); err != nil {
			status := http.StatusInternalServerError
			if said, ok := errors.AsType[*Error](err); ok {
				status = said.Status
			}
			http.Error(w, err.Error(), status)
		}
	}))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *watched) deliver(n int) {
	for range n {
		c := &outcome.Case{Kind: "incomingMessageReceived", Started: time.Now(), N: &notification.Notification{Instance: "1101000001"}}
		b.Feed.Add(c, &outcome.Verdict{Outcome: outcome.Delivered, Status: 200}, "default", time.Now())
	}
}

// A stream gives the events of an answer, each as its name, id and data.
type stream struct {
	t    *testing.T
	body *bufio.Reader
	done func() error
}

func (b *watched) watch(header ...string) *stream {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatalf("status %d, %v", answer.StatusCode, answer.Header)
	}
	return &stream{b.t, bufio.NewReader(answer.Body), answer.Body.Close}
}

// next returns the data of the next event, which has to have a name, and its id.
func (s *stream) next(name string) (data, id string) {
	s.t.Helper()
	lines := make(map[string]string)
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("want %s: %v", name, err)
		}
		field, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !found {
			break
		}
		lines[field] = value
	}
	if lines["event"] != name {
		s.t.Fatalf("got %v, want %s", lines, name)
	}
	return lines["data"], lines["id"]
}

func TestLiveStream(t *testing.T) {
	b := newWatched(t)
	b.deliver(3)
	s := b.watch()
	if hello, _ := s.next("hello"); !strings.Contains(hello, `"version":"`) || !strings.Contains(hello, `"slots":[`) {
		t.Error(hello)
	}
	if rows, _ := s.next("rows"); !strings.Contains(rows, `"shown":3`) || !strings.Contains(rows, `"instance":"1101000001"`) {
		t.Error(rows)
	}
	first, _ := s.next("tick")
	if !strings.Contains(first, `"counts":[{"outcome":"delivered","reason":"","n":3}]`) || !strings.Contains(first, `"waiting":2`) {
		t.Error(first)
	}
	b.deliver(100)
	if rows, _ := s.next("rows"); !strings.Contains(rows, `"shown":50`) || !strings.Contains(rows, `"of":100`) {
		t.Errorf("%.200s", rows)
	}
	_, id := s.next("tick")
	s.done()

	b.deliver(5)
	again := b.watch("Last-Event-ID", id)
	again.next("hello")
	if rows, _ := again.next("rows"); !strings.Contains(rows, `"of":5`) {
		t.Errorf("after %s: %s", id, rows)
	}
	again.next("tick")
	b.deliver(5000)
	if gap, _ := again.next("gap"); !strings.Contains(gap, `"from":`) {
		t.Error(gap)
	}
	again.next("rows")
	again.next("tick")
	close(b.end)
	if end, _ := again.next("end"); end != `{"reason":"reload"}` {
		t.Error(end)
	}
	if _, err := again.body.ReadByte(); err == nil {
		t.Error("the stream goes on")
	}
}

func TestLiveStreams(t *testing.T) {
	b := newWatched(t)
	var last *stream
	for range maxStreams {
		last = b.watch()
		last.next("hello")
	}
	status := func() int {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url, nil)
		r.Header.Set("Accept", "text/event-stream")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if got := status(); got != 503 {
		t.Errorf("status %d, want 503", got)
	}
	last.done()
	for deadline := time.Now().Add(10 * time.Second); status() != 200; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who has gone still counts")
		}
	}
}

func TestLiveOnce(t *testing.T) {
	b := newWatched(t)
	b.deliver(2)
	get := func(query string) (int, Live) {
		answer, err := http.Get(b.url + query)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var got Live
		if answer.StatusCode == 200 {
			if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
		}
		return answer.StatusCode, got
	}
	_, all := get("")
	if len(all.Rows) != 2 || all.Waiting != 2 || all.Gap != nil {
		t.Errorf("%+v", all)
	}
	b.deliver(1)
	if _, more := get(fmt.Sprintf("?since=%d", all.Seq)); len(more.Rows) != 1 || more.Seq != all.Seq+1 || more.Counts[0].N != 3 {
		t.Errorf("%+v", more)
	}
	for _, query := range []string{"?since=x", "?since=-1"} {
		if status, _ := get(query); status != 400 {
			t.Errorf("%s: status %d", query, status)
		}
	}
}
