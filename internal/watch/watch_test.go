package watch

import (
	"fmt"
	"testing"
	"time"
)

// TestDaily: a key comes through once a day, and however many there are, no more than maxSeen are
// remembered.
func TestDaily(t *testing.T) {
	var d Daily
	began := time.Now()
	for _, test := range []struct {
		key   string
		after time.Duration
		want  bool
	}{
		{"a", 0, true},
		{"a", 0, false},
		{"b", time.Hour, true},
		{"a", 24*time.Hour - 1, false},
		{"a", 24 * time.Hour, true},
		{"b", 24 * time.Hour, false},
		{"a", 47 * time.Hour, false},
		{"b", 25 * time.Hour, true},
	} {
		if got := d.First(test.key, began.Add(test.after)); got != test.want {
			t.Errorf("%s after %s: %t, want %t", test.key, test.after, got, test.want)
		}
	}
	for i := range 3 * maxSeen {
		if !d.First(fmt.Sprint("made up ", i), began) {
			t.Fatalf("%d does not come through", i)
		}
		if len(d.told) > maxSeen {
			t.Fatalf("%d keys are remembered", len(d.told))
		}
	}
}

// TestHandlers: a handler that fails is told of each five minutes, and its recovery once; addresses
// that come and go take no more room than maxFailing.
func TestHandlers(t *testing.T) {
	var h Handlers
	began := time.Now()
	for _, test := range []struct {
		handler string
		after   time.Duration
		want    bool
	}{{"a", 0, true}, {"a", tellFailingEvery - 1, false}, {"b", time.Minute, true}, {"a", tellFailingEvery, true}, {"b", tellFailingEvery, false}} {
		if got := h.Failed(test.handler, began.Add(test.after)); got != test.want {
			t.Errorf("%s after %s: %t, want %t", test.handler, test.after, got, test.want)
		}
	}
	if !h.Took("a") || h.Took("a") || h.Took("c") {
		t.Error("a has recovered once, and c had not failed")
	}
	if !h.Failed("a", began.Add(tellFailingEvery)) {
		t.Error("a fails again after it had recovered, and is not told of")
	}
	for i := range 2 * maxFailing {
		h.Failed(fmt.Sprint(i), began.Add(time.Hour))
	}
	if len(h.last) != maxFailing || h.last["a"] != (time.Time{}) {
		t.Errorf("%d are remembered, want %d without those that are over", len(h.last), maxFailing)
	}
	if h.Failed("new", began.Add(time.Hour)) {
		t.Error("there is room for one more")
	}
	if !h.Failed("new", began.Add(2*time.Hour)) {
		t.Error("what is over takes room")
	}
}
