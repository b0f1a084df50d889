package edgetest

import (
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func OpenWhenFree(t *testing.T, e *Edge) *quarantine.Store {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func ReadQuarantineWhole(t *testing.T, dir string) []quarantine.Entry {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var whole []quarantine.Entry
	for after := ""; ; {
		entries, err := store.List(after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry, err = store.Get(entry.ID); err != nil {
				t.Fatal(err)
			}
			whole = append(whole, entry)
			after = entry.ID
		}
		if len(entries) == 0 {
			return whole
		}
	}
}

func ReadQuarantine(t *testing.T, dir string) []quarantine.Entry {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	entries, err := store.List("", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
