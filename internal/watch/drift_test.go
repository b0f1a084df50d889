package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestDriftMadeUp: made-up types and message types of one instance do not switch the guard off.
func TestDriftMadeUp(t *testing.T) {
	schemas, err := notification.LoadSchemas("")
	if err != nil {
		t.Fatal(err)
	}
	var block Drifts
	d := block.Hold(schemas.Fingerprint())
	now := time.Now()
	faults := []notification.Fault{{Pointer: "/timestamp", Keyword: "type"}}
	parse := func(message string, instance int) *notification.Notification {
		n, err := notification.Parse([]byte(fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%d},"messageData":{"typeMessage":%q}}`, instance, message)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 2 * maxTallies {
		d.AddRules(RulesOf(schemas, parse(fmt.Sprint("made up ", i), 9), faults), "9", now, nil)
		d.AddType(fmt.Sprint("made up ", i), "9", now, nil)
	}
	turned, learned := 0, 0
	for i := range driftBreaks {
		n := parse("textMessage", i%3)
		turned += len(d.AddRules(RulesOf(schemas, n, faults), n.Instance, now, []string{"1", "2", "3"}))
		if d.AddType("genuine", n.Instance, now, []string{"1", "2", "3"}) {
			learned++
		}
	}
	if turned != 1 || learned != 1 {
		t.Errorf("%d rules turned and %d types were learned, want one each", turned, learned)
	}
	if d.AddType(strings.Repeat("x", 65), "1", now, nil) || len(d.rules.of) != 2 {
		t.Errorf("%d rules, want textMessage's and other's", len(d.rules.of))
	}
}

// TestRecallOnce: what the quarantine keeps is counted once, at the first time that it can be opened.
func TestRecallOnce(t *testing.T) {
	var desk Drift
	calls := 0
	for _, opens := range []bool{false, false, true, true} {
		desk.RecallOnce(func() bool { calls++; return opens })
	}
	if calls != 3 {
		t.Errorf("asked %d times, want 3: twice in vain", calls)
	}
}

// TestCameBodies: at least the last maxCame are known, and no more than twice as many.
func TestCameBodies(t *testing.T) {
	var c cameBodies
	for i := range uint64(3*maxCame + 7) {
		if c.before(i) {
			t.Fatalf("%d is new", i)
		}
	}
	for i := range uint64(maxCame) {
		if !c.newer[2*maxCame+7+i] && !c.older[2*maxCame+7+i] {
			t.Fatalf("%d is forgotten", 2*maxCame+7+i)
		}
	}
	if n := len(c.newer) + len(c.older); n > 2*maxCame {
		t.Errorf("%d are known", n)
	}
}
