package quarantine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestVerifyKeys: with numbers that are the same each time, a file is sound to verify whatever was put into it and deleted, in any order.
func TestVerifyKeys(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var ids []string
	for round := range 6 {
		s := openUnsynced(t, dir)
		for range 60 {
			e := testEntry(testBody(random.IntN(9000)))
			e.Received = testTime.Add(time.Duration(random.IntN(1_000_000)) * time.Second)
			ids = append(ids, mustPut(t, s, e))
		}
		random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		gone := len(ids) / 2
		if round == 4 {
			gone = len(ids) - 1
		}
		for _, id := range ids[:gone] {
			if _, err := s.Delete(id); err != nil {
				t.Fatal(err)
			}
		}
		ids = ids[gone:]
		if round%2 == 1 {
			if err := s.Scrub(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := openStore(t, dir); s.Stats().Entries != len(ids) {
		t.Errorf("%d entries, want %d", s.Stats().Entries, len(ids))
	}
}
