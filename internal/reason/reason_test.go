package reason

import (
	"os"
	"strings"
	"testing"
)

// TestExplained: the operator finds every reason of an alert in the docs, and a sentence in the alert.
func TestExplained(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	receiving, err := os.ReadFile("../../docs/receiving.md")
	if err != nil {
		t.Fatal(err)
	}
	all := Alerted()
	if len(all) < 30 {
		t.Fatalf("only %d reasons", len(all))
	}
	for _, r := range all {
		if r.Sentence() == "" {
			t.Errorf("%s has no sentence", r)
		}
		if !strings.Contains(string(doc)+string(receiving), "`"+string(r)+"`") {
			t.Errorf("docs/operations.md does not explain `%s`", r)
		}
	}
}
