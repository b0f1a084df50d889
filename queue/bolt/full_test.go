package bolt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// openUnsynced is openStore without syncs, which take most of the time, for tests of what is in the file: it
// is the same without them, as long as nothing fails.
func openUnsynced(t testing.TB, dir string, maxSize int64) *Store {
	t.Helper()
	s := openStore(t, dir, maxSize)
	s.file.DB.NoSync = true
	return s
}

// TestFull fills a store, removes some and fills it again, with bodies of one size and mixed.
func TestFull(t *testing.T) {
	for _, c := range []struct{ maxSize, body int64 }{
		{700 << 10, 1000},
		{900<<10 + 1234, 3000},
		{1 << 20, inlineMax},
		{4 << 20, 200_000},
		{12 << 20, 4 << 20},
		{4 << 20, 0}, // mixed
	} {
		t.Run(fmt.Sprintf("%d of %d", c.body, c.maxSize), func(t *testing.T) {
			t.Parallel()
			s := openUnsynced(t, t.TempDir(), c.maxSize)
			rnd := rand.New(rand.NewPCG(1, uint64(c.body)))
			bodies := map[uint64][]byte{}
			slack := c.maxSize/256 + 1<<20
			if runtime.GOOS == "windows" {
				slack = c.maxSize // the file doubles
			}
			for round := range 3 {
				fill(t, s, rnd, c.body, bodies)
				var kept int64
				for _, body := range bodies {
					kept += int64(len(body))
				}
				st := s.Stats()
				if st.Bytes > c.maxSize || st.Bytes < kept || kept < c.maxSize/4 {
					t.Errorf("%d bytes in use for %d of %d", st.Bytes, kept, c.maxSize)
				}
				limit := c.maxSize
				if round > 0 {
					limit += slack // Done has had a part in it
				}
				if size := fileSize(t, s); size > limit {
					t.Errorf("round %d: file has %d bytes, %d are allowed", round, size, limit)
				}
				check(t, s, bodies)
				var wg sync.WaitGroup
				for seq := range bodies {
					if rnd.IntN(3) > 0 {
						wg.Go(func() { mustDone(t, s, seq) })
						delete(bodies, seq)
					}
				}
				wg.Wait()
				if size := fileSize(t, s); size > c.maxSize+slack {
					t.Errorf("round %d: file has %d bytes after removing, %d are allowed", round, size, c.maxSize+slack)
				}
				check(t, s, bodies)
			}
		})
	}
}

// fill puts bodies of a size, mixed ones if it is 0, until the store is full.
func fill(t *testing.T, s *Store, rnd *rand.Rand, size int64, bodies map[uint64][]byte) {
	t.Helper()
	for {
		body := testBody(int(size))
		if size == 0 {
			body = testBody(1 << rnd.IntN(20))
		}
		_, err := s.Put(context.Background(), testRecord("1", body), 0)
		if errors.Is(err, queue.ErrFull) && strings.Contains(err.Error(), fmt.Sprint(s.maxSize.Load())) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies[s.Stats().LastSeq] = body
	}
}

func fileSize(t testing.TB, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestFullTogether has many Puts and removals at once run into the end.
func TestFullTogether(t *testing.T) {
	const maxSize = 1 << 20
	s := openUnsynced(t, t.TempDir(), maxSize)
	var mu sync.Mutex
	full, kept := 0, 0
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 40 {
				_, err := s.Put(context.Background(), testRecord(fmt.Sprint(w), testBody(1+w*i)), 0)
				mu.Lock()
				switch {
				case err == nil:
					kept++
				case errors.Is(err, queue.ErrFull):
					full++
				default:
					t.Error(err)
				}
				mu.Unlock()
				if i%8 > 0 {
					continue
				}
				for _, item := range stored(t, s) {
					if item.Instance == fmt.Sprint(w) {
						mustDone(t, s, item.Seq)
						mu.Lock()
						kept--
						mu.Unlock()
						break
					}
				}
			}
		})
	}
	wg.Wait()
	if full == 0 || s.Stats().Entries != kept || fileSize(t, s) > maxSize+1<<20 {
		t.Errorf("%d kept, %d counted, %d refused, file of %d bytes", kept, s.Stats().Entries, full, fileSize(t, s))
	}
}
