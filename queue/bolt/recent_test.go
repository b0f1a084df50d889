package bolt

import (
	"reflect"
	"testing"
)

// TestRecent: a record comes from memory as it comes from the file, memory is bounded, and nothing stays of what is
// done.
func TestRecent(t *testing.T) {
	const most = 64 << 10
	s := openStore(t, t.TempDir(), 0)
	s.recent.most = most
	stuck := mustPut(t, s, testRecord("1", testBody(100)))
	bodies := map[uint64][]byte{stuck: testBody(100)}
	const size = inlineMax - 1000
	for i := range 2*most/size + 1 {
		seq := mustPut(t, s, testRecord("2", testBody(size-i%2)))
		bodies[seq] = testBody(size - i%2)
	}
	parts := mustPut(t, s, testRecord("3", testBody(100_000)))
	bodies[parts] = testBody(100_000)
	last := parts - 1
	for seq, here := range map[uint64]bool{stuck: false, last: true, parts: false} {
		if _, is := s.recent.texts[seq]; is != here {
			t.Errorf("record %d is in memory: %v", seq, is)
		}
	}
	if s.recent.bytes > most || s.recent.bytes < most-2*inlineMax {
		t.Errorf("%d bytes", s.recent.bytes)
	}
	check(t, s, bodies)
	quick, err := (&share{store: s}).Load(last)
	if err != nil {
		t.Fatal(err)
	}
	s.recent = newRecent()
	if slow, err := (&share{store: s}).Load(last); err != nil || !reflect.DeepEqual(quick, slow) {
		t.Errorf("%+v from memory, %+v from the file, error %v", quick, slow, err)
	}
	next := mustPut(t, s, testRecord("2", testBody(100)))
	mustDone(t, s, next)
	if len(s.recent.texts) > 0 || s.recent.bytes != 0 {
		t.Errorf("%d records of %d bytes are left", len(s.recent.texts), s.recent.bytes)
	}
}

// TestRecentSpan: a record that stays while many come and go does not make a later one dear.
func TestRecentSpan(t *testing.T) {
	r := newRecent()
	r.add(1, make([]byte, 1))
	for seq := uint64(2); seq < 3*recentSpan; seq++ {
		r.add(seq, make([]byte, 1))
		r.remove(seq)
		if seq-r.oldest > recentSpan {
			t.Fatalf("%d is there when %d comes", r.oldest, seq)
		}
	}
	r.add(1<<40, make([]byte, 1)) // after as many that are not in one piece
	if r.oldest != 1<<40 || len(r.texts) != 1 || r.bytes != 1 {
		t.Errorf("%d records of %d bytes from %d", len(r.texts), r.bytes, r.oldest)
	}
}
