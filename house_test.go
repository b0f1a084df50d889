package greenapi

import (
	"cmp"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/greenapi-community/caddy-green-api"

// A room is a folder of Go code.
type room struct {
	imports []string // rooms that it may import
	caddy   bool     // it may import Caddy
}

// house says what each room may import. A row that grows is a warning: hand in a value or a function
// instead.
var house = map[string]room{
	".": {caddy: true, imports: []string{
		"console",
		"internal/address",
		"internal/api",
		"internal/backlog",
		"internal/command",
		"internal/delivery",
		"internal/doctor",
		"internal/drain",
		"internal/follow",
		"internal/judge",
		"internal/lease",
		"internal/outcome",
		"internal/proxy",
		"internal/reason",
		"internal/receiver",
		"internal/tell",
		"internal/token",
		"internal/watch",
		"notification",
		"quarantine",
		"queue",
		"queue/bolt",
		"sender",
		"vendorapi",
	}},

	// Worlds of their own: they know neither Caddy nor each other.
	"console": {}, "notification": {}, "queue": {}, "sender": {}, "vendorapi": {},
	"quarantine": {imports: []string{"internal/boltfile"}},
	"queue/bolt": {imports: []string{"internal/boltfile", "queue"}},

	"internal/address": {}, "internal/boltfile": {}, "internal/drain": {}, "internal/exchange": {}, "internal/follow": {}, "internal/garbage": {}, "internal/lease": {}, "internal/reason": {}, "internal/spans": {},
	"internal/outcome":  {imports: []string{"internal/reason", "notification"}},
	"internal/delivery": {imports: []string{"internal/outcome", "internal/reason", "internal/spans"}},
	"internal/proxy":    {caddy: true, imports: []string{"internal/delivery", "internal/exchange", "internal/outcome"}},
	"internal/judge":    {imports: []string{"internal/outcome", "internal/reason", "notification"}},
	"internal/token":    {imports: []string{"internal/follow", "notification"}},
	"internal/live":     {imports: []string{"internal/outcome", "internal/reason", "internal/spans", "notification"}},
	"internal/tell":     {imports: []string{"internal/live", "internal/outcome", "internal/reason", "notification"}},
	"internal/watch":    {imports: []string{"internal/outcome", "internal/reason", "notification"}},
	"internal/backlog":  {imports: []string{"internal/outcome", "internal/reason", "internal/watch", "notification", "queue"}},
	"internal/receiver": {imports: []string{"internal/lease", "internal/outcome", "internal/reason", "notification", "vendorapi"}},
	"internal/doctor":   {caddy: true, imports: []string{"quarantine"}},

	"internal/api": {imports: []string{
		"internal/address", "internal/live", "internal/outcome", "internal/reason", "internal/receiver", "internal/watch", "quarantine", "queue",
	}},

	"internal/command": {caddy: true, imports: []string{
		"internal/address", "internal/api", "internal/doctor", "internal/follow", "internal/judge", "internal/outcome", "internal/reason", "internal/token",
		"console", "notification", "quarantine", "sender", "vendorapi",
	}},

	// A module of its own.
	"nats":           {caddy: true, imports: []string{"queue"}},
	"nats/cmd/caddy": {caddy: true, imports: []string{".", "internal/garbage", "nats"}},

	// For tests.
	"internal/boltfile/boltfiletest": {},
	"queue/queuetest":                {imports: []string{"queue"}},
	"internal/standin":               {imports: []string{"sender"}},
	"internal/edgetest":              {caddy: true, imports: []string{"internal/standin", "notification", "quarantine", "sender"}},
	"test/adopt":                     {caddy: true, imports: []string{".", "internal/doctor", "internal/edgetest", "notification"}},
	"test/chaos":                     {caddy: true, imports: []string{".", "internal/edgetest", "quarantine", "sender", "notification"}},
	"test/deliver":                   {caddy: true, imports: []string{".", "internal/delivery", "internal/edgetest", "internal/standin"}},
	"test/traps":                     {caddy: true, imports: []string{".", "internal/command", "internal/edgetest", "internal/reason", "internal/standin"}},
	"test/deploy":                    {caddy: true, imports: []string{".", "internal/edgetest"}},
	"test/deploy/files":              {}, // a module of its own
	"test/queue":                     {caddy: true, imports: []string{".", "internal/edgetest", "internal/standin", "queue", "queue/bolt", "sender"}},
	"test/restarts":                  {caddy: true, imports: []string{".", "internal/edgetest", "internal/standin"}},

	"console/browsertest": {}, // a module of its own

	"examples/handlers/go": {},

	"cmd/caddy":         {caddy: true, imports: []string{".", "internal/garbage"}},
	"bench/edge":        {imports: []string{"bench/load"}},
	"bench/load":        {},
	"bench/queue":       {imports: []string{"bench/load", "quarantine"}},
	"bench/edge/xcaddy": {caddy: true, imports: []string{"."}},
	"bench/stall":       {imports: []string{"notification", "sender"}},
}

// TestHouse holds the table: imports go one way, and only the rooms that are meant to know Caddy do.
func TestHouse(t *testing.T) {
	found, byTests := importsOfRooms(t)
	for name, imports := range found {
		allowed, known := house[name]
		if !known {
			t.Errorf("%s: the table has no row for it; add one that says what it may import, and a line to the map in CONTRIBUTING.md", name)
			continue
		}
		for _, imported := range imports {
			rest, ours := strings.CutPrefix(imported, modulePath)
			rest = cmp.Or(strings.TrimPrefix(rest, "/"), ".")
			switch {
			case ours && !slices.Contains(allowed.imports, rest):
				t.Errorf("%s imports %s; hand in a value or a function instead, or move the code to a room that may", name, rest)
			case strings.HasPrefix(imported, "github.com/caddyserver/") && !allowed.caddy:
				t.Errorf("%s imports %s; keep Caddy in the rooms that may know it, and hand in what this one needs", name, imported)
			}
		}
	}
	for name, imports := range byTests {
		for _, imported := range imports {
			rest, ours := strings.CutPrefix(imported, modulePath)
			rest = cmp.Or(strings.TrimPrefix(rest, "/"), ".")
			if (ours && house[rest].caddy || strings.HasPrefix(imported, "github.com/caddyserver/")) && !house[name].caddy {
				t.Errorf("tests of %s import %s; that links Caddy, which takes seconds at each run", name, imported)
			}
		}
	}
	for name := range house {
		if len(found[name]) == 0 {
			t.Errorf("the table has a row for %s, where there is no code", name)
		}
		if circle := wayBack(name, name, nil); circle != nil {
			t.Errorf("the table allows a circle: %s", strings.Join(circle, " → "))
		}
	}
}

// TestNoNATS: whoever builds without the module nats has nothing of it in the program.
func TestNoNATS(t *testing.T) {
	if testing.Short() {
		t.Skip("asks the go command")
	}
	list, err := exec.Command("go", "list", "-deps", "./cmd/caddy").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(list), modulePath+"\n") {
		t.Errorf("go list does not list this package: %.200s", list)
	}
	for name := range strings.Lines(string(list)) {
		if strings.Contains(name, "nats-io") || strings.HasPrefix(name, modulePath+"/nats") {
			t.Errorf("cmd/caddy has %s", name)
		}
	}
}

// importsOfRooms returns what the files of each folder import, and apart from that what their tests do. In test/
// and console/browsertest there is nothing but tests.
func importsOfRooms(t *testing.T) (found, byTests map[string][]string) {
	t.Helper()
	found, byTests = make(map[string][]string), make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && name != ".") {
			return filepath.SkipDir
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if filepath.Ext(path) != ".go" {
			return nil
		}
		to := found
		if strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(dir, "test/") && dir != "console/browsertest" {
			to = byTests
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			to[dir] = append(to[dir], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, byTests
}

// wayBack returns a way from one room to another along the table, nil if there is none.
func wayBack(from, to string, way []string) []string {
	if slices.Contains(way, from) {
		return nil
	}
	way = append(slices.Clone(way), from)
	for _, next := range house[from].imports {
		if next == to {
			return append(way, to)
		}
		if found := wayBack(next, to, way); found != nil {
			return found
		}
	}
	return nil
}
