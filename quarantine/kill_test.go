package quarantine

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile/boltfiletest"
)

// children are what another process of the test binary may do with a directory.
var children = map[string]func(dir string) error{"put": putForever}

// TestMain can be one of the children.
func TestMain(m *testing.M) { boltfiletest.Main(m, children) }

// putForever prints "ID size" after each Put that has returned, and deletes and scrubs now and then.
func putForever(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	fmt.Println("open")
	failed := make(chan error)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				n := rand.IntN(6000)
				if i%10 == 0 {
					n = rand.IntN(200_000)
				}
				id, err := s.Put(testEntry(testBody(n)), 0)
				if err != nil {
					failed <- err
					return
				}
				if w > 0 || i%3 > 0 {
					fmt.Println(id, n) // one write to the pipe: lines are whole but for the last
					continue
				}
				if _, err := s.Delete(id); err != nil {
					failed <- err
					return
				}
				if err := s.Scrub(); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// TestKill kills a process that puts, at random moments, and looks for what it was told is kept.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := map[string][]byte{}
	for range 6 {
		cmd := boltfiletest.Child(t, "put", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // the last line may be cut
			}
			once.Do(func() {
				time.AfterFunc(rand.N(250*time.Millisecond), func() { _ = cmd.Process.Kill() })
			})
			if id, size, found := strings.Cut(strings.TrimSpace(line), " "); found {
				n, err := strconv.Atoi(size)
				if err != nil {
					t.Fatal(err)
				}
				kept[id] = testBody(n)
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("child ended by itself: %v", err)
		}

		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for id, body := range kept {
			if e, err := s.Get(id); err != nil || !bytes.Equal(e.Body, body) {
				t.Errorf("entry %s of %d bytes: got %d, error %v", id, len(body), len(e.Body), err)
			}
		}
		// What was killed before it could print is there too: eight Puts at most a time, each whole.
		list, err := s.List("", len(kept)+100)
		if err != nil || len(list) != s.Stats().Entries {
			t.Errorf("%d entries listed, %d counted, error %v", len(list), s.Stats().Entries, err)
		}
		all := map[string][]byte{}
		for _, e := range list {
			all[e.ID] = testBody(int(e.Size))
		}
		checkEntries(t, s, all)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d kept, %d in the store", len(kept), len(list))
	}
	if len(kept) < 100 {
		t.Errorf("only %d kept: the test shows little", len(kept))
	}
}
