package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func TestActivity(t *testing.T) {
	b := newBench(t)
	for i := range mostActions + 5 {
		if status, text := b.call(http.MethodPost, "activity", fmt.Sprintf("action=body+opened&user=anna&client_ip=192.0.2.7&quarantine_id=E%d&count=1", i)); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, text)
		}
	}
	status, text := b.call(http.MethodGet, "activity", "")
	var said struct{ Actions []Action }
	if err := json.Unmarshal([]byte(text), &said); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	if len(said.Actions) != mostActions || said.Actions[0].QuarantineID != fmt.Sprintf("E%d", mostActions+4) || said.Actions[0].User != "anna" || said.Actions[0].At.IsZero() {
		t.Errorf("%d actions, the first %+v", len(said.Actions), said.Actions[0])
	}
	records := b.logs.FilterMessage("console action").All()
	if len(records) != mostActions+5 {
		t.Fatalf("%d records", len(records))
	}
	if got := fmt.Sprint(records[0].ContextMap()); got != "map[action:body opened client_ip:192.0.2.7 count:1 quarantine_id:E0 user:anna]" {
		t.Error(got)
	}
}

func TestActivityRefused(t *testing.T) {
	b := newBench(t)
	for body, want := range map[string]string{
		"":                                    "action",
		"user=anna":                           "action",
		"action=a&action=b":                   "more than one",
		"action=a&count=-1":                   "count",
		"action=a&count=x":                    "count",
		"action=a&chat=1":                     "chat: unknown parameter",
		"action=" + strings.Repeat("a", 1000): "200 bytes",
	} {
		if status, text := b.call(http.MethodPost, "activity", body); status != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if n := b.logs.Len(); n != 0 {
		t.Errorf("%d records", n)
	}
}

// TestActivityOfQueue: an order is noted with what it is about, and that of a lane with whose the lane is, but never with its
// chat.
func TestActivityOfQueue(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.put("sales/1101000001/79001234568@c.us/ONE")
		b.logged()
		id := b.lane("1101000001")
		for _, test := range [][2]string{
			{"lane=" + id, "instance:1101000001 lane:" + id + " name:sales "},
			{"lane=000000000000", "lane:000000000000 "},
			{"name=sales&instance=7", "instance:7 name:sales "},
		} {
			b.want("POST", "activity", "action=queue+skipped&user=anna&"+test[0], 204, "")
			b.wantLogged("console action map[action:queue skipped client_ip: " + test[1] + "user:anna]")
		}
		_, text := b.call("GET", "activity", "")
		if !strings.Contains(text, `"action":"queue skipped","name":"sales","instance":"1101000001","lane":"`+id+`"}`) || strings.Contains(text, "79001234568") {
			t.Error(text)
		}
	})
}

// TestActivityOfVisits: many logins do not push out what somebody changed.
func TestActivityOfVisits(t *testing.T) {
	var a Activity
	a.Note(Action{Action: "deleted"})
	for i := range mostActions {
		a.Note(Action{Action: "login", Count: i})
		a.Note(Action{Action: "logout", Count: i})
	}
	last := a.Last()
	if n := len(last); n != 2*mostOfKind+1 || last[n-1].Action != "deleted" || last[1].Count != mostActions-1 || last[n-2].Count != mostActions-mostOfKind {
		t.Errorf("%d actions: %+v", n, last)
	}
	for range 2 * mostActions {
		a.Note(Action{Action: "replayed"})
	}
	if last := a.Last(); len(last) != mostActions || last[mostActions-1].Action != "replayed" {
		t.Errorf("%d actions", len(last))
	}
}

// TestActivityOfReplays: a replay is followed by what came of it.
func TestActivityOfReplays(t *testing.T) {
	b := newBench(t)
	for instance, n := range map[string]int{"delivered": 3, "failed": 2, "kept": 1} {
		for range n {
			b.put(quarantine.Entry{Name: "default", Instance: instance})
		}
	}
	b.put(quarantine.Entry{Name: "default", Reason: "malformed"})
	b.Replay = func(_ string, entry quarantine.Entry, _ bool) (*outcome.Verdict, []string) {
		return &outcome.Verdict{Outcome: map[string]outcome.Outcome{"delivered": outcome.Delivered, "failed": outcome.Failed, "kept": outcome.Quarantined}[entry.Instance]}, nil
	}
	b.want("POST", "quarantine/replay?dry_run=true&all=true", "", 200, "")
	b.want("POST", "quarantine/replay?all=true", "", 200, "")
	b.want("POST", "quarantine/replay?id=20261121T034150123-00000001", "", 200, "not_found")
	last := b.Activity.Last()
	if len(last) != 2 || last[0].Action != ReplayEnded || last[0].At.IsZero() {
		t.Fatalf("%+v", last)
	}
	for i, want := range []Replayed{{Failed: 1}, {Delivered: 3, Failed: 2, Kept: 1, Skipped: 1}} {
		if *last[i].Replay != want {
			t.Errorf("%+v, want %+v", *last[i].Replay, want)
		}
	}
}
