package delivery

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestRulesInDocs: docs/delivery.md shows the table of the code.
func TestRulesInDocs(t *testing.T) {
	answers := map[Result]string{
		Taken: "a complete 2xx", NotNow: "not reachable; 408, 425, 429, 502, 503, 504", HandlerError: "another 5xx",
		Misrouted: "3xx, 401, 403, 404, 405", RefusedByIt: "another 4xx", BrokenOff: "breaks off", TimedOut: "time runs out",
		Nobody: "nothing is there that answers", NoneFree: "nobody was asked: all are full, want time or have answered",
	}
	states := map[upstreamState]string{
		0: "", saidLater: "asked again later", brokeItOff: "asked again if no other is left", spent: "not asked again",
	}
	var want strings.Builder
	want.WriteString("| answer | its handler is | next | if nobody takes it |\n|---|---|---|---|\n")
	for result, rule := range rules {
		end := ""
		if failure, ends := failures[Result(result)]; ends {
			end = fmt.Sprintf("%d `%s`", failure.Status, failure.Reason)
		}
		if answers[Result(result)] == "" {
			t.Errorf("no words for result %d", result)
		}
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", answers[Result(result)], states[rule.marks], rule.next, end)
	}
	text, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/delivery.md lacks this table:\n%s", want.String())
	}
}
