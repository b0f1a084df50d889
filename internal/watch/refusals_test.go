package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

func TestRefusals(t *testing.T) {
	var r Refusals
	began := time.Unix(1_800_000_000, 0)
	after := func(minutes int) time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
	known := map[string]bool{"1": true}
	want := func(when string, now time.Time, want string) {
		t.Helper()
		got := ""
		for _, one := range r.List(now, func(instance string) bool { return known[instance] }) {
			got += fmt.Sprintf("%s %s %t %s-%s ", one.Instance, one.Reason, one.Known, one.Since.Sub(began), one.At.Sub(began))
		}
		if got != want {
			t.Errorf("%s: %s\nwant %s", when, got, want)
		}
	}
	r.Let("1", began)
	want("at first", began, "")
	r.Add(Refusal{Instance: "1", Reason: "bad_token", Known: true, At: after(1)})
	r.Add(Refusal{Instance: "2", Reason: "instance_not_allowed", At: after(2)})
	r.Add(Refusal{Instance: "1", Reason: "no_token", Known: true, At: after(3)})
	for _, c := range []struct {
		instance string
		why      reason.Reason
		later    time.Duration
		want     bool
	}{{"1", "no_token", time.Second - 1, true}, {"1", "no_token", time.Second, false}, {"1", "bad_token", 0, false}, {"3", "no_token", 0, false}} {
		if got := r.Lately(c.instance, c.why, after(3).Add(c.later)); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	want("refused", after(3), "1 no_token true 1m0s-3m0s 2 instance_not_allowed false 2m0s-2m0s ")
	r.Let("1", after(2)) // it came before, and took its time
	r.Let("3", after(4))
	r.Add(Refusal{Instance: "2", Reason: "instance_not_allowed", Known: true, At: after(4)})
	known["2"] = true
	want("known by now", after(4), "2 instance_not_allowed true 4m0s-4m0s 1 no_token true 1m0s-3m0s ")
	delete(known, "1")
	want("no longer in the config", after(4), "2 instance_not_allowed true 4m0s-4m0s ")
	delete(known, "2")
	r.Add(Refusal{Instance: "2", Reason: "instance_not_allowed", At: after(4)})
	want("another token", after(4), "2 instance_not_allowed false 4m0s-4m0s ")
	known["1"], known["2"] = true, true
	r.Let("1", after(5))
	want("let in", after(5), "2 instance_not_allowed true 4m0s-4m0s ")
	want("a day later", after(4+24*60+1), "")
	if r.some.Load() {
		t.Error("there is still one")
	}
}

// TestRefusalsBounded: however many instances somebody names, those that are known stay, and the last ones of the others.
func TestRefusalsBounded(t *testing.T) {
	var r Refusals
	knows := func(instance string) bool { return strings.HasPrefix(instance, "k") }
	began := time.Unix(1_800_000_000, 0)
	r.Add(Refusal{Instance: "known", Known: true, At: began})
	for n := range 3 * maxUnlisted {
		r.Add(Refusal{Instance: fmt.Sprint(n), Reason: "instance_not_allowed", At: began.Add(time.Duration(n + 1))})
	}
	all := r.List(began.Add(time.Hour), knows)
	if len(all) != maxUnlisted+1 || all[0].Instance != fmt.Sprint(3*maxUnlisted-1) || all[maxUnlisted].Instance != "known" {
		t.Errorf("%d: %v … %v", len(all), all[0], all[len(all)-1])
	}
	for n := range maxSeen + 10 {
		r.Add(Refusal{Instance: fmt.Sprint("k", n), Known: true, At: began.Add(time.Minute)})
	}
	if n := len(r.List(began.Add(time.Hour), knows)); n != maxSeen+maxUnlisted {
		t.Errorf("%d instances", n)
	}
}

// BenchmarkLet is what a notification pays for this while no instance is refused.
func BenchmarkLet(b *testing.B) {
	var r Refusals
	now := time.Now()
	for b.Loop() {
		r.Let("1101000001", now)
	}
}
