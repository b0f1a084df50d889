package bolt

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile/boltfiletest"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// children are what another process of the test binary may do with a directory.
var children = map[string]func(dir string) error{"work": work, "rest": workAndRest}

// TestMain can be one of the children.
func TestMain(m *testing.M) { boltfiletest.Main(m, children) }

// work puts and removes. It prints "put NAME" after each Put that has returned, "removing NAME" before and
// "removed NAME" after each removal. A name is INSTANCE/NUMBER, and rises with each Put of its instance.
func work(dir string) error {
	s, err := Open(dir, 0)
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() {
		failed <- s.Serve(context.Background(), func(h queue.Share) {
			for {
				item, err := h.Next(context.Background())
				if err != nil {
					failed <- err
					return
				}
				if rand.IntN(4) > 0 {
					go remove(h, item, failed)
				}
			}
		})
	}()
	fmt.Println("open")
	began := time.Now().UnixNano() // names rise from one process to the next
	for i := range 16 {
		go func() {
			for n := range 1 << 30 {
				name := fmt.Sprintf("%d/%d", i, began+int64(n))
				body := name + " " + strings.Repeat("x", rand.IntN(3000))
				if n%20 == 0 {
					body += strings.Repeat("x", 100_000)
				}
				if _, err := s.Put(context.Background(), testRecord(fmt.Sprint(i), []byte(body)), 0); err != nil {
					failed <- err
					return
				}
				fmt.Println("put", name) // one write to the pipe: lines are whole but for the last
			}
		}()
	}
	return <-failed
}

func remove(h queue.Share, item queue.Item, failed chan<- error) {
	r, err := h.Load(item.Seq)
	if err == nil {
		name, _, _ := strings.Cut(string(r.Body), " ")
		fmt.Println("removing", name)
		if err = h.Done(item.Seq); err == nil {
			fmt.Println("removed", name)
			return
		}
	}
	failed <- err
}

// killed runs a child, kills it at a random moment after its first line, and calls each with the words of each line.
func killed(t *testing.T, name, dir string, within time.Duration, each func(verb, what string)) {
	t.Helper()
	cmd := boltfiletest.Child(t, name, dir)
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
		once.Do(func() { time.AfterFunc(rand.N(within), func() { _ = cmd.Process.Kill() }) })
		verb, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		each(verb, what)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
		t.Fatalf("child ended by itself: %v", err)
	}
}

// kills returns how often a test kills its child: more if it may take its time, and must have shown something.
func kills() int {
	if os.Getenv("GREEN_API_PROOFS") == "1" {
		return 60
	}
	return 3
}

// TestKill kills a process that puts and removes, at random moments. Nothing is lost that it was told is stored,
// nothing comes back that it was told is removed, and the order is kept.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put, gone, may := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range kills() {
		killed(t, "work", dir, 90*time.Millisecond, func(verb, what string) {
			switch verb {
			case "put":
				put[what] = true
			case "removing":
				may[what] = true
			case "removed":
				gone[what] = true
			}
		})
		s, err := Open(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		last := map[string]string{}
		for _, item := range stored(t, s) {
			r, err := (&share{store: s}).Load(item.Seq)
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(string(r.Body), " ")
			if gone[name] || there[name] {
				t.Errorf("%s: removed %v, there twice %v", name, gone[name], there[name])
			}
			there[name] = true
			if last[r.Instance] >= name { // of one length
				t.Errorf("%s comes after %s", name, last[r.Instance])
			}
			last[r.Instance] = name
		}
		for name := range put {
			if !there[name] && !may[name] {
				t.Errorf("%s is lost", name)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d put, %d removed", len(put), len(gone))
	if least := 10 * kills(); kills() > 10 && (len(put) < least || len(gone) < least) {
		t.Errorf("only %d put, %d removed: the test shows little", len(put), len(gone))
	}
}

// workAndRest puts and removes, with pauses in which the file is made anew. It prints "seq SEQ" after each Put and
// "controls INSTANCE" before and "control INSTANCE" after each change of what the operator orders.
func workAndRest(dir string) error {
	s, err := open(dir, 0, time.Millisecond)
	if err != nil {
		return err
	}
	go s.write()
	fmt.Println("open")
	for n := s.Stats().LastSeq; ; n++ {
		if _, err := s.Put(context.Background(), testRecord("1", fmt.Appendf(nil, "%d", n)), 0); err != nil {
			return err
		}
		seq := s.Stats().LastSeq
		fmt.Println("seq", seq)
		order := fmt.Sprint(rand.IntN(1000))
		fmt.Println("controls", order)
		if err := s.SetControl(queue.Control{Paused: []queue.Target{{Instance: order}}}); err != nil {
			return err
		}
		fmt.Println("control", order)
		for _, seq := range s.all() { // one of the last process, too
			if err := (&share{store: s}).Done(seq); err != nil {
				return err
			}
		}
		time.Sleep(rand.N(4 * time.Millisecond))
	}
}

// all returns the sequence numbers of all records.
func (s *Store) all() (all []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := s.index.next(0); it != nil; it = s.index.next(it.seq) {
		all = append(all, it.seq)
	}
	return all
}

// TestKillAtRest kills a process that makes its file anew again and again. No sequence number comes again, and what
// the operator has ordered stays.
func TestKillAtRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var last uint64
	renewed := 0
	var before os.FileInfo
	for range kills() {
		orders, tried := "", ""
		killed(t, "rest", dir, 60*time.Millisecond, func(verb, what string) {
			switch verb {
			case "seq":
				var seq uint64
				if _, err := fmt.Sscan(what, &seq); err != nil {
					t.Fatal(err)
				}
				if seq <= last {
					t.Errorf("sequence number %d comes after %d", seq, last)
				}
				last = seq
			case "controls":
				tried = what
			case "control":
				orders = what
			}
		})
		after, err := os.Stat(dir + "/" + FileName)
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && !os.SameFile(before, after) {
			renewed++
		}
		before = after
		s, err := Open(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if c := s.Control(); orders != "" && (len(c.Paused) != 1 || c.Paused[0].Instance != orders && c.Paused[0].Instance != tried) {
			t.Errorf("orders are %+v, were %s", c, orders)
		}
		if seq := s.Stats().LastSeq; seq < last {
			t.Errorf("last sequence number is %d, was %d", seq, last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if renewed == 0 && kills() > 10 { // a slow disk may have left no time for it
		t.Error("the file was never made anew: the test shows nothing")
	}
}
