package greenapi

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
)

// listOf is an instances file of that many instances, from the first one on.
func listOf(first, count int) string {
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "%d token-%d\n", 1101000000+first+i, first+i)
	}
	return text.String()
}

// follower is a followed instances file that looks when the test says so.
type follower struct {
	*followed
	t     *testing.T
	auth  *Auth
	logs  *observer.ObservedLogs
	notes []outcome.Note
}

func newFollower(t *testing.T, text string) *follower {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	f := &follower{t: t, logs: logs, auth: &Auth{set: new(atomic.Pointer[token.Set])}}
	path := filepath.Join(t.TempDir(), "instances")
	f.followed = &followed{
		said: path, path: path, kind: "instances", parse: f.auth.parseFile, logger: zap.New(core),
		tell: func(n outcome.Note) { f.notes = append(f.notes, n) },
	}
	f.write(text)
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	logs.TakeAll()
	return f
}

func (f *follower) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// inForce is the instances that are in force.
func (f *follower) inForce() int { return len(f.auth.set.Load().Own) }

// TestFollowDoubt: a copy that seems to have been cut short is not taken into force, until it is whole
// or the config is loaded again.
func TestFollowDoubt(t *testing.T) {
	whole := listOf(1, 200)
	for name, test := range map[string]struct {
		before, after string
		now           int    // instances in force
		says          string // in the ERROR, or "" for none
		lost          int64  // in the WARN
	}{
		"empty":                             {whole, "", 200, "no instance in it", 0},
		"comments only":                     {whole, "# nothing\n", 200, "no instance in it", 0},
		"torn token":                        {whole, whole[:len(whole)-5], 200, "has no line end", 0},
		"torn in the first line":            {"1101000001 token\n", "1101000001 tok", 1, "has no line end", 0},
		"torn comment":                      {whole, whole + "# and so", 200, "has no line end", 0},
		"never had a line end":              {"1 a\n2 b", "1 a\n3 c", 2, "", 1},
		"has one at last":                   {"1 a\n2 b", "1 a\n2 b\n3 c\n", 3, "", 0},
		"a tenth":                           {whole, listOf(1, 180), 180, "", 20},
		"more than a tenth":                 {whole, listOf(1, 179), 200, "21 of 200 entries are missing", 0},
		"ten of few":                        {listOf(1, 12), listOf(1, 2), 2, "", 10},
		"eleven of few":                     {listOf(1, 12), listOf(1, 1), 12, "11 of 12 entries are missing", 0},
		"others in their place":             {whole, listOf(1001, 200), 200, "200 of 200 entries are missing", 0},
		"more":                              {whole, listOf(1, 210), 210, "", 0},
		"one":                               {whole, listOf(2, 199), 199, "", 1},
		"another spelling":                  {"7 a\n", "007 a\n", 1, "", 0},
		"byte-order mark":                   {whole, "\xef\xbb\xbf" + whole, 200, "byte-order mark (UTF-8)", 0},
		"byte-order mark of two bytes":      {whole, "\xff\xfe1\x00", 200, "byte-order mark (UTF-16)", 0},
		"zeros, as after a loss of power":   {whole, strings.Repeat("\x00", len(whole)), 200, "has no line end", 0},
		"twice, with and without zeros":     {whole, "7 a\n07 b\n" + whole, 200, "line 2: instance 07 is there already", 0},
		"a token in the place of an id":     {whole, "s3cret 7\n" + whole, 200, "line 1: the id is not 1 to 20 digits", 0},
		"longer than what is read":          {whole, strings.Repeat("#", maxFollowed) + "\n" + whole, 200, "more than 16777216 bytes", 0},
		"a brace that is no placeholder":    {whole, "7 s3cret{x}\n" + whole, 200, `as in \{`, 0},
		"a brace with a backslash":          {"7 a\n", `7 s3cret\{x\}` + "\n", 1, "", 0},
		"a placeholder that does not exist": {whole, "7 {env.GREEN_API_TEST_NOT_SET}\n" + whole, 200, "{env.GREEN_API_TEST_NOT_SET} is not set", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t, test.before)
			f.write(test.after)
			for range 5 { // it is said once
				f.look()
			}
			if got := f.inForce(); got != test.now {
				t.Errorf("%d instances are in force, want %d", got, test.now)
			}
			errs, lost := f.logs.FilterLevelExact(zap.ErrorLevel).All(), int64(0)
			if test.says == "" && (len(errs) != 0 || len(f.notes) != 0) {
				t.Errorf("complains: %v %v", errs, f.notes)
			}
			if test.says != "" && (len(errs) != 1 || len(f.notes) != 1 || f.notes[0].Reason != reason.BadFile ||
				!strings.Contains(errs[0].ContextMap()["error"].(string), test.says) || !strings.Contains(f.notes[0].More, test.says)) {
				t.Errorf("complains %v %v, want %q", errs, f.notes, test.says)
			}
			for _, warning := range f.logs.FilterLevelExact(zap.WarnLevel).All() {
				fields := warning.ContextMap()
				lost += fields["instances_lost"].(int64)
				if fields["instances_now"] != int64(test.now) || fields["instances_before"] == int64(0) {
					t.Errorf("warns %v", fields)
				}
			}
			if lost != test.lost {
				t.Errorf("warns of %d lost, want %d", lost, test.lost)
			}
			for _, entry := range f.logs.All() {
				if strings.Contains(fmt.Sprint(entry), "s3cret") {
					t.Errorf("the log shows what is in the file: %v", entry)
				}
			}
			f.write(test.before + "\n1101999999 another\n") // whole again
			f.look()
			f.look()
			if _, there := f.auth.set.Load().Own["1101999999"]; !there {
				t.Error("the whole file is not in force")
			}
		})
	}
}

// TestFollowSecondLook: a file that somebody writes is read when it has not changed since the look
// before.
func TestFollowSecondLook(t *testing.T) {
	f := newFollower(t, "1 a\n")
	for i := 2; i < 10; i++ { // a slow writer
		f.write(listOf(1, i))
		f.look()
		if f.inForce() != 1 {
			t.Fatal("a file is in force that is being written")
		}
	}
	f.look()
	if f.inForce() != 9 {
		t.Errorf("%d instances are in force, want 9", f.inForce())
	}
	// A content that was seen once, long ago, is new again.
	f.write(listOf(1, 3))
	f.look()
	f.write(listOf(1, 9))
	f.look()
	f.write(listOf(1, 3))
	f.look()
	if f.inForce() != 9 {
		t.Error("a file is in force that was looked at once")
	}
	f.readAgain(f.judged) // what was looked at twice is not what is there now
	if f.inForce() != 9 {
		t.Error("a file is in force that has changed after it was looked at")
	}
}

// TestFollowSameSizeAndTime: rsync --times and coarse clocks leave size and time as they were.
func TestFollowSameSizeAndTime(t *testing.T) {
	f := newFollower(t, "1101000001 old-token\n")
	at := time.Now().Add(-time.Hour)
	for _, text := range []string{"1101000001 old-token\n", "1101000002 new-token\n"} {
		f.write(text)
		if err := os.Chtimes(f.path, at, at); err != nil {
			t.Fatal(err)
		}
		f.look()
		f.look()
	}
	if !f.auth.set.Load().Own["1101000002"] {
		t.Error("the new content is not in force")
	}
}

// TestFollowGone: a file that goes and comes back as it was is good again.
func TestFollowGone(t *testing.T) {
	f := newFollower(t, "1 a\n")
	for range 3 {
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
		f.look()
		f.look()
		f.write("1 a\n")
		f.look()
		f.look()
	}
	if errs, again := f.logs.FilterLevelExact(zap.ErrorLevel).Len(), f.logs.FilterMessage("file read again").Len(); errs != 3 || again != 3 || f.inForce() != 1 {
		t.Errorf("%d errors, %d times read again: %v", errs, again, f.logs.All())
	}
}

// TestFollowForced: a load of the config takes the file as it stands, with a WARN of what it has lost.
func TestFollowForced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "instances")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(listOf(1, 40))
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Alerting(in.URL, "every 1s", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstances "+file+"\n}\nreverse_proxy "+up.Address)
	e := edgetest.Start(t, config)
	last := func() int {
		return e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000040", 1), "Authorization", "token-40")
	}
	write(listOf(1, 20) + "1101000021 tok")
	edgetest.Eventually(t, "complaint", func() bool { return strings.Contains(e.Logs.All(), errCutShort.Error()) })
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), "as if the file was cut short") })
	if got, torn := last(), e.Post(edgetest.TextMessage, "Authorization", "tok"); got != 200 || torn != 401 {
		t.Errorf("cut short: status %d, with the torn token %d", got, torn)
	}
	write(listOf(1, 20))
	edgetest.Eventually(t, "complaint", func() bool { return strings.Contains(e.Logs.All(), "20 of 40 entries are missing") })
	if got := last(); got != 200 {
		t.Errorf("half of it: status %d", got)
	}
	config = strings.Replace(config, "ip_filter {", "log_body\nip_filter {", 1)
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := last(); got != 200 {
		t.Errorf("half of it, and another config: status %d", got)
	}
	if n := strings.Count(e.Logs.All(), "20 of 40 entries are missing"); n != 2 {
		t.Errorf("%d complaints, want one of each config", n)
	}
	if err := e.Load(config); err != nil { // as with --force
		t.Fatal(err)
	}
	if got := last(); got != 401 {
		t.Errorf("loaded again: status %d", got)
	}
	if logs := e.Logs.All(); !strings.Contains(logs, `"instances_before":40,"instances_now":20,"instances_lost":20`) {
		t.Errorf("no warning of the loss: %s", logs)
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(e.Logs.All(), "instances_lost"); n != 1 {
		t.Errorf("%d warnings of the loss, want 1", n)
	}
}

// TestByteOrderMark: an error at load names it.
func TestByteOrderMark(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	for _, test := range []struct{ text, block string }{
		{"1101000001 a\n", "auth {\ninstances " + file + "\n}"},
		{"203.0.113.7\n", "ip_filter {\nsource green_api_file " + file + "\n}\nauth off"},
	} {
		if err := os.WriteFile(file, []byte("\xef\xbb\xbf"+test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := loadConfig(t, strings.ReplaceAll(edgetest.Site(test.block), "PORT", "8080"))
		if err == nil || !strings.Contains(err.Error(), file+": it begins with a byte-order mark (UTF-8); want UTF-8 without one") {
			t.Errorf("%s: %v", test.block, err)
		}
	}
}

// TestFollowUnended: a file that never had a line end at its end cannot show that it was cut short.
func TestFollowUnended(t *testing.T) {
	for text, want := range map[string]bool{"1 a\n": false, "1 a\n2 b": true} {
		file := filepath.Join(t.TempDir(), "instances")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e := edgetest.Start(t, edgetest.Site("auth {\ninstances "+file+"\n}"))
		if got := strings.Contains(e.Logs.All(), "the last line of the file has no line end"); got != want {
			t.Errorf("%q: warns %t", text, got)
		}
	}
}

// TestAddressesLost: an address is lost only if the newer list has it in no prefix.
func TestAddressesLost(t *testing.T) {
	parse := func(text string) address.Set {
		list, err := parseAddresses([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, test := range []struct {
		before, after string
		want          int
	}{
		{"203.0.113.7", "203.0.113.7", 0},
		{"203.0.113.7", "203.0.113.8", 1},
		{"203.0.113.1\n203.0.113.2\n203.0.113.3", "203.0.113.0/24", 0},
		{"203.0.113.0/24", "203.0.113.0/25 203.0.113.128/25", 0},
		{"203.0.113.0/24", "203.0.113.0/25", 1},
		{"2001:db8::/33 ::1", "2001:db8::/32", 1},
		{"0.0.0.0/0", "::/0", 1},
	} {
		if got := parse(test.before).Missing(parse(test.after)); got != test.want {
			t.Errorf("%q to %q: %d lost, want %d", test.before, test.after, got, test.want)
		}
	}
	if last := address.Last(netip.MustParsePrefix("2001:db8::/31")); last.String() != "2001:db9:ffff:ffff:ffff:ffff:ffff:ffff" {
		t.Error(last)
	}
	long := parse(addressesOf(100))
	for after, doubtful := range map[string]bool{addressesOf(90): false, addressesOf(89): true} {
		if err := (fileCopy{listed: addressList{long}}).doubtLoss(addressList{parse(after)}); (err != nil) != doubtful {
			t.Errorf("%d of them: %v", strings.Count(after, "\n"), err)
		}
	}
}

func addressesOf(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	return text.String()
}

// TestLongAddressFile: a stranger's request costs no look at each line of a long list.
func TestLongAddressFile(t *testing.T) {
	list, err := parseAddresses([]byte(addressesOf(500_000)))
	if err != nil {
		t.Fatal(err)
	}
	file := new(AddressFile)
	file.list.Store(&list)
	f := &IPFilter{}
	f.sources = append(f.sources, file)
	began := time.Now()
	for range 1000 { // 5 s, line by line
		if f.allows("203.0.113.9", nil) || !f.allows("10.0.0.1", nil) || !f.allows("::ffff:10.7.161.31", nil) {
			t.Fatal("found wrongly")
		}
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("3000 look-ups took %s", took)
	}
}
