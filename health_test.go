package greenapi

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/api"
)

// TestHealthOfApp: an app is ready when its config has started and its quarantine can be read.
func TestHealthOfApp(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := time.Date(2026, 11, 21, 15, 4, 5, 6_000_000, time.FixedZone("", 3600))
	for _, test := range []struct {
		path   string
		loaded time.Time
		want   []api.Unready
	}{
		{filepath.Join(dir, "quarantine"), loaded, nil},
		{filepath.Join(dir, "quarantine"), time.Time{}, []api.Unready{api.Starting}},
		{file, loaded, []api.Unready{api.QuarantineClosed}},
	} {
		a := &App{Quarantine: &Quarantine{Path: test.path}, loaded: test.loaded}
		got := a.health()
		if !slices.Equal(got.Reasons, test.want) || len(got.Config) != 64 {
			t.Errorf("%+v: %+v", test, got)
		}
		if want := map[bool]string{false: "2026-11-21T14:04:05.006Z"}[test.loaded.IsZero()]; got.Loaded != want {
			t.Errorf("loaded %q, want %q", got.Loaded, want)
		}
	}
}
