package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
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
