package greenapi

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// followEvery is how often a file is looked at. It is not watched by the kernel: that misses files
// that are replaced by a link, as Kubernetes does, and what lies on a network.
var followEvery = time.Second // shorter in tests

// A followed file is read at load and again whenever it changes. A bad one keeps the last good copy
// in force.
type followed struct {
	said  string // the path as the config says it, for logs and errors
	path  string
	kind  string // what it lists
	parse parseList

	logger *zap.Logger
	tell   func(outcome.Note) // may be nil

	good   fileCopy    // the copy in force
	memory *copyMemory // of it, for the next config; may be nil
	meant  bool        // the block is loaded as it was, which takes --force: the file is taken as it stands

	seed   maphash.Seed
	judged fileSum // the content that was last read, good or bad
	seen   fileSum // the content at the look before
	bad    string  // what was last said to be wrong
}

// parseList reads a copy of a file. It returns what the copy lists, and use, which takes it into force.
type parseList func(text []byte) (listed entries, use func(), err error)

// A fileSum tells one content from another. The time of a file does not: tools set it, and clocks
// are coarse. The zero value is no content.
type fileSum struct {
	sum  uint64
	size int64
	read bool
}

// maxFollowed is the longest file that is read.
const maxFollowed = 16 << 20

// load reads the file for the first time. A file that cannot be used is an error. If it seems to have
// been cut short since the config before, that one's copy stays in force, unless it is meant.
func (f *followed) load() error {
	f.seed = maphash.MakeSeed()
	text, sum, err := f.read()
	if err != nil {
		return err
	}
	f.judged, f.seen = sum, sum
	listed, use, err := f.parse(text)
	if err != nil {
		return err
	}
	now := newCopy(text, listed)
	if f.keepBefore(now) {
		return nil
	}
	use()
	f.good = now
	if !f.good.ended {
		f.logger.Warn("the last line of the file has no line end, so that a copy that was cut short looks like a whole one", zap.String("file", f.said))
	}
	if before := f.memory.swap(f.good); before.listed != nil {
		f.warnOfLoss(before)
	}
	return nil
}

// keepBefore takes the copy of the config before into force if the one that is there now seems to have been cut
// short. It reports whether it did.
func (f *followed) keepBefore(now fileCopy) bool {
	before := f.memory.get()
	if f.meant || before.listed == nil {
		return false
	}
	doubt := before.doubt(now)
	if doubt == nil {
		return false
	}
	listed, use, err := f.parse(before.text)
	if err != nil { // it does not go with the new config
		return false
	}
	use()
	f.good = newCopy(before.text, listed)
	f.complain(doubt)
	return true
}

// follow looks at the file until the config that names it is replaced.
func (f *followed) follow(ctx context.Context) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.look()
		}
	}
}

// look reads the file if it has changed, and has not since the look before: somebody may be writing
// it.
func (f *followed) look() {
	sum, err := f.sum()
	before := f.seen
	f.seen = sum
	switch {
	case err != nil:
		f.judged = fileSum{} // whatever comes is new
		f.complain(err)
	case sum == f.judged:
	case sum == before:
		f.readAgain(sum)
	}
}

// readAgain takes the copy with that sum into force, unless something is wrong with it.
func (f *followed) readAgain(want fileSum) {
	text, sum, err := f.read()
	if sum.read && sum != want { // changed since
		f.seen = sum
		return
	}
	f.judged = sum
	var listed entries
	var use func()
	if err == nil {
		err = f.good.doubtEnd(text)
	}
	if err == nil {
		listed, use, err = f.parse(text)
	}
	if err == nil {
		err = f.good.doubtLoss(listed)
	}
	if err != nil {
		f.complain(err)
		return
	}
	use()
	f.bad = ""
	before := f.good
	f.good = newCopy(text, listed)
	f.memory.swap(f.good)
	f.logger.Info("file read again", zap.String("file", f.said))
	f.warnOfLoss(before)
}

// warnOfLoss tells how much less the copy in force lists than the one before it.
func (f *followed) warnOfLoss(before fileCopy) {
	if lost := before.listed.missingFrom(f.good.listed); lost > 0 {
		f.logger.Warn("file lists less than before", zap.String("file", f.said), zap.Int(f.kind+"_before", before.listed.count()),
			zap.Int(f.kind+"_now", f.good.listed.count()), zap.Int(f.kind+"_lost", lost))
	}
}

// complain tells of a file that cannot be used, once for each thing that is wrong with it.
func (f *followed) complain(err error) {
	if f.bad == err.Error() {
		return
	}
	f.bad = err.Error()
	f.logger.Error("file cannot be used, its last good copy stays in force", zap.String("file", f.said), zap.Error(err))
	if f.tell != nil {
		f.tell(outcome.Note{Reason: reason.BadFile, Kind: notification.KindNone, Level: zap.ErrorLevel, More: f.said + ": " + err.Error() + ".", At: time.Now()})
	}
}

// sum is the sum of the file's content.
func (f *followed) sum() (fileSum, error) {
	var sum maphash.Hash
	sum.SetSeed(f.seed)
	size, err := readFollowed(f.path, &sum)
	if err != nil {
		return fileSum{}, err
	}
	return fileSum{sum.Sum64(), size, true}, nil
}

// read returns the file's content, and its sum as soon as that is known.
func (f *followed) read() ([]byte, fileSum, error) {
	var text byteSink
	size, err := readFollowed(f.path, &text)
	if err != nil {
		return nil, fileSum{}, err
	}
	sum := fileSum{maphash.Bytes(f.seed, text), size, true}
	if mark := byteOrderMark(text); mark != "" {
		return nil, sum, fmt.Errorf("it begins with a byte-order mark (%s); want UTF-8 without one", mark)
	}
	return text, sum, nil
}

// byteSink is a writer into memory.
type byteSink []byte

func (s *byteSink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// readFollowed reads a file. Its errors do not have the path in them, which may come out of a
// placeholder.
func readFollowed(path string, into io.Writer) (int64, error) {
	if err := wantRegular(path); err != nil {
		return 0, err
	}
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return 0, withoutPath(err)
	}
	defer file.Close()
	size, err := io.Copy(into, io.LimitReader(file, maxFollowed+1))
	if err == nil && size > maxFollowed {
		return 0, fmt.Errorf("more than %d bytes; want at most as many", maxFollowed)
	}
	return size, withoutPath(err)
}

var errNotRegular = errors.New("not a regular file")

// wantRegular refuses what is no regular file: a pipe or a device may never come to an end.
func wantRegular(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return errNotRegular
	}
	return nil
}

// withoutComment takes the comment off a line: from a # at its beginning or after white space.
func withoutComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

// copyMemories remember over reloads, by kind and path, the copies of followed files that are in
// force.
var copyMemories = caddy.NewUsagePool()

// copyMemory remembers one.
type copyMemory struct {
	mu   sync.Mutex
	copy fileCopy
}

// swap remembers a copy and returns the one before, which lists nil if there was none.
func (m *copyMemory) swap(newer fileCopy) fileCopy {
	if m == nil {
		return fileCopy{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.copy
	m.copy = newer
	return before
}

// get returns the copy, which lists nil if there is none.
func (m *copyMemory) get() fileCopy {
	if m == nil {
		return fileCopy{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copy
}

// Destruct has nothing to do.
func (*copyMemory) Destruct() error { return nil }

// loadedAgainKey is where the context of a block's provisioning says whether the block is as it was in the config
// before. Caddy loads the same config again only with `caddy reload --force`.
type loadedAgainKey struct{}

// followFile loads a file of things of a kind, and follows it as long as the config runs.
func followFile(ctx caddy.Context, said, kind string, tell func(outcome.Note), parse parseList) error {
	path, err := resolve(said)
	if err != nil {
		return err
	}
	key := kind + " " + path
	memory, _, _ := copyMemories.LoadOrNew(key, func() (caddy.Destructor, error) { return new(copyMemory), nil }) // never fails
	context.AfterFunc(ctx, func() { _, _ = copyMemories.Delete(key) })
	meant, inBlock := ctx.Value(loadedAgainKey{}).(bool)
	f := &followed{
		said: said, path: path, kind: kind, parse: parse, logger: ctx.Logger(), tell: tell, memory: memory.(*copyMemory),
		meant: meant || !inBlock,
	}
	if err := f.load(); err != nil {
		return pathError(said, err)
	}
	go f.follow(ctx)
	return nil
}
