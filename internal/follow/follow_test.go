package follow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// names is the first word of each line.
type names []string

func (n names) Count() int { return len(n) }

func (n names) MissingFrom(newer Entries) (missing int) {
	for _, name := range n {
		if !slices.Contains(newer.(names), name) {
			missing++
		}
	}
	return missing
}

// listOf is a file of that many names, from the first number on.
func listOf(first, count int) string {
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "%d word-%d\n", 1101000000+first+i, first+i)
	}
	return text.String()
}

// follower is a file with what is in effect of it, and what was said of it.
type follower struct {
	*File
	t     *testing.T
	names names // in effect
	logs  *observer.ObservedLogs
	told  []error
}

// newFollower returns a file of that text that has not been loaded.
func newFollower(t *testing.T, text string) *follower {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	path := filepath.Join(t.TempDir(), "list")
	f := &follower{t: t, logs: logs}
	f.File = &File{
		Said: path, Path: path, Kind: "names", Parse: f.parse, Log: zap.New(core),
		Tell: func(err error) { f.told = append(f.told, err) },
	}
	f.write(text)
	return f
}

// newLoaded returns a file of that text that has been loaded.
func newLoaded(t *testing.T, text string) *follower {
	t.Helper()
	f := newFollower(t, text)
	if err := f.Load(); err != nil {
		t.Fatal(err)
	}
	f.logs.TakeAll()
	return f
}

func (f *follower) parse(text []byte) (Entries, func(), error) {
	var list names
	for number, words := range Lines(text) {
		if words[0] == "bad" {
			return nil, nil, fmt.Errorf("line %d: bad", number)
		}
		list = append(list, words[0])
	}
	if len(list) == 0 {
		return nil, nil, errors.New("no name in it")
	}
	return list, func() { f.names = list }, nil
}

func (f *follower) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) remove() {
	f.t.Helper()
	if err := os.Remove(f.Path); err != nil {
		f.t.Fatal(err)
	}
}

// errors are what was logged as ERROR.
func (f *follower) errors() (said []string) {
	for _, entry := range f.logs.FilterLevelExact(zap.ErrorLevel).All() {
		said = append(said, entry.ContextMap()["error"].(string))
	}
	return said
}

// TestFollow: a change is in effect after two looks, and a bad file leaves the last good copy in effect, which is
// said once, until the file is good again.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLoaded(t, "one\n")
		ctx, stop := context.WithCancel(t.Context())
		go f.Follow(ctx)
		step := func(want string, faults int) {
			t.Helper()
			time.Sleep(2*Every + Every/2)
			synctest.Wait()
			if got := strings.Join(f.names, " "); got != want {
				t.Errorf("%q is in effect, want %q", got, want)
			}
			if len(f.told) != faults || len(f.errors()) != faults {
				t.Errorf("told of %v, logged %v, want %d faults", f.told, f.errors(), faults)
			}
		}
		f.write("# changed\none # still\ntwo\n")
		step("one two", 0)
		for faults, bad := range []string{"# nothing\n", "one\nbad\n", "bad\n"} {
			f.write(bad)
			step("one two", faults+1)
			time.Sleep(time.Minute)
			step("one two", faults+1)
		}
		f.remove()
		step("one two", 4)
		if want := "no such file or directory"; runtime.GOOS != "windows" && f.told[3].Error() != want {
			t.Errorf("told %q, want %q", f.told[3], want)
		}
		f.write("three\n")
		step("three", 4)
		stop()
		f.write("four\n")
		step("three", 4)
	})
}

// TestDoubt: a copy that seems to have been cut short is not put into effect until it is whole.
func TestDoubt(t *testing.T) {
	whole := listOf(1, 200)
	for name, test := range map[string]struct {
		before, after string
		now           int    // names in effect
		says          string // in the ERROR, or "" for none
		lost          int64  // in the WARN
	}{
		"empty":                           {whole, "", 200, "no name in it", 0},
		"comments only":                   {whole, "# nothing\n", 200, "no name in it", 0},
		"torn word":                       {whole, whole[:len(whole)-5], 200, "has no line end", 0},
		"torn in the first line":          {"1101000001 word\n", "1101000001 wor", 1, "has no line end", 0},
		"torn comment":                    {whole, whole + "# and so", 200, "has no line end", 0},
		"never had a line end":            {"1 a\n2 b", "1 a\n3 c", 2, "", 1},
		"has one at last":                 {"1 a\n2 b", "1 a\n2 b\n3 c\n", 3, "", 0},
		"a tenth":                         {whole, listOf(1, 180), 180, "", 20},
		"more than a tenth":               {whole, listOf(1, 179), 200, "21 of 200 entries are missing", 0},
		"ten of few":                      {listOf(1, 12), listOf(1, 2), 2, "", 10},
		"eleven of few":                   {listOf(1, 12), listOf(1, 1), 12, "11 of 12 entries are missing", 0},
		"others in their place":           {whole, listOf(1001, 200), 200, "200 of 200 entries are missing", 0},
		"more":                            {whole, listOf(1, 210), 210, "", 0},
		"one":                             {whole, listOf(2, 199), 199, "", 1},
		"byte-order mark":                 {whole, "\xef\xbb\xbf" + whole, 200, "byte-order mark (UTF-8)", 0},
		"byte-order mark of two bytes":    {whole, "\xff\xfe1\x00", 200, "byte-order mark (UTF-16)", 0},
		"zeros, as after a loss of power": {whole, strings.Repeat("\x00", len(whole)), 200, "has no line end", 0},
		"longer than what is read":        {whole, strings.Repeat("#", maxRead) + "\n" + whole, 200, "more than 16777216 bytes", 0},
		"a line that cannot be parsed":    {whole, "bad\n" + whole, 200, "line 1: bad", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLoaded(t, test.before)
			f.write(test.after)
			for range 5 { // it is said once
				f.look()
			}
			if len(f.names) != test.now {
				t.Errorf("%d names are in effect, want %d", len(f.names), test.now)
			}
			errs := f.errors()
			if test.says == "" && (len(errs) != 0 || len(f.told) != 0) {
				t.Errorf("complains: %v %v", errs, f.told)
			}
			if test.says != "" && (len(errs) != 1 || len(f.told) != 1 || !strings.Contains(errs[0], test.says) || errs[0] != f.told[0].Error()) {
				t.Errorf("complains %v %v, want %q", errs, f.told, test.says)
			}
			lost := int64(0)
			for _, warning := range f.logs.FilterLevelExact(zap.WarnLevel).All() {
				fields := warning.ContextMap()
				lost += fields["names_lost"].(int64)
				if fields["names_now"] != int64(test.now) || fields["names_before"] == int64(0) {
					t.Errorf("warns %v", fields)
				}
			}
			if lost != test.lost {
				t.Errorf("warns of %d lost, want %d", lost, test.lost)
			}
			f.write(test.before + "\n1101999999 another\n") // whole again
			f.look()
			f.look()
			if !slices.Contains(f.names, "1101999999") {
				t.Error("the whole file is not in effect")
			}
		})
	}
}

// TestSecondLook: while somebody writes a file, it is not read. It is once it has not changed since the look before.
func TestSecondLook(t *testing.T) {
	f := newLoaded(t, "1 a\n")
	want := func(names int) {
		t.Helper()
		if len(f.names) != names {
			t.Fatalf("%d names are in effect, want %d", len(f.names), names)
		}
	}
	for i := 2; i < 10; i++ { // a slow writer
		f.write(listOf(1, i))
		f.look()
		want(1)
	}
	f.look()
	want(9)
	// A content that was seen once, long ago, is new again.
	for _, count := range []int{3, 9, 3} {
		f.write(listOf(1, count))
		f.look()
		want(9)
	}
	f.readAgain(f.judged) // the file has changed after the second look
	want(9)
}

// TestSameSizeAndTime: rsync --times and coarse clocks leave size and time as they were.
func TestSameSizeAndTime(t *testing.T) {
	f := newLoaded(t, "1101000001 old-word\n")
	at := time.Now().Add(-time.Hour)
	for _, text := range []string{"1101000001 old-word\n", "1101000002 new-word\n"} {
		f.write(text)
		if err := os.Chtimes(f.Path, at, at); err != nil {
			t.Fatal(err)
		}
		f.look()
		f.look()
	}
	if !slices.Contains(f.names, "1101000002") {
		t.Error("the new content is not in effect")
	}
}

// TestGone: a file that goes and comes back as it was is good again.
func TestGone(t *testing.T) {
	f := newLoaded(t, "1 a\n")
	for range 3 {
		f.remove()
		f.look()
		f.look()
		f.write("1 a\n")
		f.look()
		f.look()
	}
	if again := f.logs.FilterMessage("file read again").Len(); len(f.errors()) != 3 || again != 3 || len(f.names) != 1 {
		t.Errorf("%d errors, %d times read again: %v", len(f.errors()), again, f.logs.All())
	}
}

// TestMemory: the next config that loads the file keeps the last good copy if the file seems to have been cut short,
// unless it is forced to take the file as it stands. Then it warns of what is lost, once.
func TestMemory(t *testing.T) {
	memory := new(Memory)
	load := func(text string, forced bool) *follower {
		t.Helper()
		f := newFollower(t, text)
		f.Memory, f.Forced = memory, forced
		if err := f.Load(); err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := func(f *follower, names, faults, warnings int) {
		t.Helper()
		if warned := f.logs.FilterMessage("file lists less than before").Len(); len(f.names) != names || len(f.told) != faults || warned != warnings {
			t.Errorf("%d names are in effect, told of %v, %d warnings; want %d, %d, %d", len(f.names), f.told, warned, names, faults, warnings)
		}
	}
	want(load(listOf(1, 40), false), 40, 0, 0)
	want(load(listOf(1, 20), false), 40, 1, 0)
	want(load(listOf(1, 20)+"1101000021 wor", false), 40, 1, 0)
	kept := load(listOf(1, 20), false)
	want(kept, 40, 1, 0)
	kept.look() // it is said already, and stays so
	kept.look()
	want(kept, 40, 1, 0)
	want(load(listOf(1, 20), true), 20, 0, 1)
	want(load(listOf(1, 20), true), 20, 0, 0)

	// A version that is read between two configs is what the next one compares with.
	between := load(listOf(1, 20), false)
	between.write(listOf(1, 40))
	between.look()
	between.look()
	want(load(listOf(1, 20), false), 40, 1, 0)

	// A copy of which the next config can make nothing is not kept.
	memory.swap(newCopy([]byte("bad\n"+listOf(1, 40)), between.names))
	want(load(listOf(1, 20), false), 20, 0, 1)
}

// TestUnended: a file that never had a line end at its end cannot show that it was cut short.
func TestUnended(t *testing.T) {
	for text, want := range map[string]int{"1 a\n": 0, "1 a\n2 b": 1} {
		f := newFollower(t, text)
		if err := f.Load(); err != nil {
			t.Fatal(err)
		}
		if got := f.logs.FilterMessageSnippet("the last line of the file has no line end").Len(); got != want {
			t.Errorf("%q: %d warnings, want %d", text, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	var got []string
	for number, words := range Lines([]byte("# comment\none a#b  c # both\r\n\n \t# more\n\ttwo\tx\t# y\nthree")) {
		got = append(got, fmt.Sprint(number, words))
	}
	if text := strings.Join(got, " "); text != "2 [one a#b c] 5 [two x] 6 [three]" {
		t.Errorf("got %s", text)
	}
	for range Lines([]byte("one\ntwo\n")) {
		break // which the loop must allow
	}
}
