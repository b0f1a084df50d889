package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// TestFlightsSenders: who joins a flight is its sender from then on. It is not left for a third, and
// whether somebody hears of the end is up to it.
func TestFlightsSenders(t *testing.T) {
	body, good := []byte("a body"), &outcome.Verdict{Outcome: outcome.Delivered}
	c := &outcome.Case{Body: body}
	for _, secondStays := range []bool{true, false} {
		var f flights
		first, hangUp := context.WithCancel(t.Context())
		mine, _, _ := f.board(first, "", c.Digest(), 0)
		hangUp()
		second, hangUp := context.WithCancel(t.Context())
		if _, other, _ := f.board(second, "", c.Digest(), 0); other != mine {
			t.Fatal("the second does not join the first, which nobody waits for")
		}
		third := t.Context()
		if unseen, other, ended := f.board(third, "", c.Digest(), 0); unseen != nil || other != nil || ended {
			t.Error("the third joins although the second waits")
		}
		f.land(nil, third, c, good, 0)
		if !secondStays {
			hangUp()
		}
		f.land(mine, first, c, good, 0)
		if _, _, ended := f.board(t.Context(), "", c.Digest(), 0); ended == secondStays {
			t.Errorf("second waits %t: the next is told of the end %t", secondStays, ended)
		}
		hangUp()
	}

	var f flights
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	f.land(nil, gone, c, good, 0) // one that flew unseen
	if _, _, ended := f.board(gone, "", c.Digest(), 0); !ended {
		t.Error("not told of the end")
	}
	if _, _, ended := f.board(t.Context(), "", c.Digest(), 0); !ended {
		t.Error("who has hung up was told, and nobody else is")
	}
	if _, _, ended := f.board(t.Context(), "", c.Digest(), 0); ended {
		t.Error("told twice")
	}
}

// TestUnheardBounded: however many senders hang up, the memory for them is bounded.
func TestUnheardBounded(t *testing.T) {
	var u unheard
	body := make([]byte, 8)
	for i := range 3 * maxUnheard {
		binary.BigEndian.PutUint64(body, uint64(i))
		u.add(sha256.Sum256(body), 0)
	}
	if len(u.until) > maxUnheard || len(u.oldest) > maxUnheard || !u.tell(sha256.Sum256(body), unheardFor-1, true) {
		t.Errorf("%d and %d remembered", len(u.until), len(u.oldest))
	}
	u.tell(sha256.Sum256([]byte("another")), unheardFor, true)
	if len(u.until)+len(u.oldest) != 0 {
		t.Errorf("%d and %d are compared with each notification after all are over", len(u.until), len(u.oldest))
	}
	u.add(sha256.Sum256(body), unheardFor)
	if len(u.until) != 1 || len(u.oldest) != 1 {
		t.Errorf("%d and %d remembered after all are over", len(u.until), len(u.oldest))
	}
}

func TestDuplicatesForget(t *testing.T) {
	if most := NewFleet(nil).duplicates.most; most != maxDuplicates {
		t.Errorf("a fleet remembers %d, want %d", most, maxDuplicates)
	}
	d := duplicates{most: 2000}
	now := time.Unix(1700000000, 0)
	key := func(i int) (k eventKey) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	d.add(key(1), now, time.Minute)
	for after, want := range map[time.Duration]bool{0: true, 59 * time.Second: true, time.Minute: false} {
		if got := d.has(key(1), now.Add(after)); got != want {
			t.Errorf("after %s: %t", after, got)
		}
	}
	for i := range d.most + 1000 {
		d.add(key(i+2), now, time.Minute)
	}
	if len(d.until) > d.most || len(d.oldest) != len(d.until) || d.has(key(1), now) || !d.has(key(d.most), now) {
		t.Errorf("%d remembered", len(d.until))
	}
	d.add(key(0), now.Add(time.Hour), time.Minute)
	if len(d.until) != 1 || len(d.oldest) != 1 {
		t.Errorf("%d remembered after all are over", len(d.until))
	}
}

// TestFlightsBothWays: what comes by webhook and HTTP API at once, as while an instance is switched,
// is one notification; twice by the same way it is two.
func TestFlightsBothWays(t *testing.T) {
	for _, test := range []struct {
		first, second string
		joins         bool
	}{{"", "api", true}, {"api", "", true}, {"", "", false}, {"api", "api", false}} {
		var f flights
		mine, _, _ := f.board(t.Context(), test.first, sha256.Sum256([]byte("a body")), 0)
		if mine == nil {
			t.Fatal("the first does not board")
		}
		if _, other, _ := f.board(t.Context(), test.second, sha256.Sum256([]byte("a body")), 0); (other != nil) != test.joins {
			t.Errorf("via %q, then %q: joins %t, want %t", test.first, test.second, other != nil, test.joins)
		}
	}
}
