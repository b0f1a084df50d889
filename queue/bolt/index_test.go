package bolt

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// TestIndex compares an index with a map, while it grows and shrinks, and with one record that stays for ever in
// between.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	x := newIndex()
	want := map[uint64]string{}
	seq := uint64(0)
	for round := range 40 {
		for range rnd.IntN(3000) {
			seq += 1 + uint64(rnd.IntN(3))
			want[seq] = fmt.Sprint(rnd.IntN(50))
			x.add(seq, summary{instance: want[seq], received: int64(seq), block: fmt.Sprint(seq % 3), chat: "c"}, seq%2 == 0)
		}
		keys := slices.Sorted(maps.Keys(want))
		for i, key := range keys {
			if key%1000 > 2 && (rnd.IntN(3) > 0 || i < len(keys)/2 && round%2 == 0) {
				x.remove(key)
				x.remove(key)
				delete(want, key)
			}
		}
		x.remove(seq + 1)
		var got []uint64
		for it := x.next(0); it != nil; it = x.next(it.seq) {
			got = append(got, it.seq)
			if p := x.public(it); p.Instance != want[it.seq] || p.Block != fmt.Sprint(it.seq%3) || p.Chat != "c" || p.Size != 0 {
				t.Fatalf("got %+v", p)
			}
		}
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) || x.entries != len(want) {
			t.Fatalf("round %d: %d items, %d counted, want %d", round, len(got), x.entries, len(want))
		}
		counts := map[string]int{}
		for _, name := range want {
			counts[name]++
		}
		for name, of := range x.instances {
			if of.count != counts[name] {
				t.Fatalf("instance %s has %d records, want %d", name, of.count, counts[name])
			}
		}
		if len(x.instances) != len(counts) {
			t.Fatalf("%d instances, want %d", len(x.instances), len(counts))
		}
	}
	room := 0
	for _, c := range x.chunks {
		room += cap(c.items)
	}
	if room > 4*len(want)+2*chunkLen || len(x.chunks) > len(want)+1 {
		t.Errorf("room for %d items in %d chunks, there are %d", room, len(x.chunks), len(want))
	}
	for seq := range want {
		x.remove(seq)
	}
	if len(x.chunks)+len(x.instances)+x.entries > 0 {
		t.Errorf("empty: %d chunks, %d instances, %d entries", len(x.chunks), len(x.instances), x.entries)
	}
	if n := unsafe.Sizeof(item{}); n > 40 {
		t.Errorf("an item takes %d bytes", n)
	}
}
