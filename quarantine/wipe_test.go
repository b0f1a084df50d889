package quarantine

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// hasBytes reports whether the file of s has them, in use or not.
func hasBytes(t *testing.T, s *Store, what string) bool {
	t.Helper()
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(what))
}

// TestWipeDue: what was deleted and not wiped is wiped by whoever opens the file next.
func TestWipeDue(t *testing.T) {
	const secret = "SECRET BODY"
	dir := t.TempDir()
	s := openStore(t, dir)
	id := mustPut(t, s, testEntry([]byte(secret)))
	mustPut(t, s, testEntry(testBody(100)))
	if s.Stats().WipeDue {
		t.Error("due before anything was deleted")
	}
	if n, err := s.Delete("none"); n != 0 || err != nil || s.Stats().WipeDue {
		t.Errorf("nothing deleted: %d, %v, due %v", n, err, s.Stats().WipeDue)
	}
	if _, err := s.Delete(id); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // for all that the file knows, it was a kill
		t.Fatal(err)
	}

	s = openStore(t, dir)
	if !s.Stats().WipeDue || !hasBytes(t, s, secret) {
		t.Fatalf("after a kill: due %v", s.Stats().WipeDue)
	}
	if err := s.Scrub(); err != nil {
		t.Fatal(err)
	}
	if s.Stats().WipeDue || hasBytes(t, s, secret) {
		t.Errorf("after Scrub: due %v, bytes left %v", s.Stats().WipeDue, hasBytes(t, s, secret))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if openStore(t, dir).Stats().WipeDue {
		t.Error("due once more")
	}
}

// TestWipeStaysDue: it stays due when wiping fails, and when more was deleted meanwhile.
func TestWipeStaysDue(t *testing.T) {
	s := openStore(t, t.TempDir())
	ids := []string{mustPut(t, s, testEntry(testBody(100))), mustPut(t, s, testEntry(testBody(200)))}
	if _, err := s.Delete(ids[0]); err != nil {
		t.Fatal(err)
	}
	whole := s.file.OS
	readOnly, err := os.Open(filepath.Clean(s.path))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	s.file.OS = readOnly
	err = s.Scrub()
	s.file.OS = whole
	if err == nil || !s.Stats().WipeDue {
		t.Errorf("after a failed Scrub: error %v, due %v", err, s.Stats().WipeDue)
	}

	before := s.deletes
	if _, err := s.Delete(ids[1]); err != nil {
		t.Fatal(err)
	}
	if err := s.wiped(before); err != nil || !s.Stats().WipeDue {
		t.Errorf("deleted meanwhile: error %v, due %v", err, s.Stats().WipeDue)
	}
	if err := s.Scrub(); err != nil || s.Stats().WipeDue {
		t.Errorf("at last: error %v, due %v", err, s.Stats().WipeDue)
	}
}
