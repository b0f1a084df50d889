package edgetest

import (
	"os"
	"testing"
)

// Proof skips a test that takes seconds or needs other programs. `make proofs` runs them all.
func Proof(t *testing.T) {
	t.Helper()
	if os.Getenv("GREEN_API_PROOFS") != "1" {
		t.Skip("make proofs runs it")
	}
}
