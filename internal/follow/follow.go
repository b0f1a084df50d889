// Package follow reads one of the operator's files, again whenever it changes. If a new version is
// unusable, or seems to have been cut short, the last good copy stays in effect.
package follow

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"go.uber.org/zap"
)

// Every is how often a file is checked. Kernel notifications would miss files that are replaced through a
// link, as Kubernetes does, and files on a network.
const Every = time.Second

// A File is a file that is followed. Call Load first, then Follow.
type File struct {
	Said  string // the path as in the config, for logs and errors
	Path  string
	Kind  string // what it lists, in the plural, for logs
	Parse Parse

	Log  *zap.Logger
	Tell func(error) // called once for each fault of the file; may be nil

	Memory *Memory       // keeps the copy in effect for the next config; may be nil
	Every  time.Duration // how often it is checked; 0 for follow.Every
	Forced bool          // Load takes the file as it is, however much is missing

	good fileCopy // the copy in effect

	seed   maphash.Seed
	judged fileSum // the content last read, good or bad
	seen   fileSum // the content at the last check
	bad    string  // the fault last reported
}

// Parse parses a copy of a file. It returns what the copy lists, and use, which puts it into effect.
type Parse func(text []byte) (listed Entries, use func(), err error)

// A fileSum identifies a content. A file's time would not do: tools set it, and clocks are coarse. The zero
// value stands for no content.
type fileSum struct {
	sum  uint64
	size int64
	read bool
}

// Load reads the file for the first time. An unusable file is an error. If it seems to have been cut short
// since the previous config, that config's copy stays in effect, unless Forced.
func (f *File) Load() error {
	f.seed = maphash.MakeSeed()
	text, sum, err := f.read()
	if err != nil {
		return err
	}
	f.judged, f.seen = sum, sum
	listed, use, err := f.Parse(text)
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
		f.Log.Warn("the last line of the file has no line end, so that a copy that was cut short looks like a whole one", zap.String("file", f.Said))
	}
	if before := f.Memory.swap(f.good); before.listed != nil {
		f.warnOfLoss(before)
	}
	return nil
}

// keepBefore puts the previous config's copy into effect if the current file seems to have been cut short.
// It reports whether it did.
func (f *File) keepBefore(now fileCopy) bool {
	before := f.Memory.get()
	if f.Forced || before.listed == nil {
		return false
	}
	doubt := before.doubt(now)
	if doubt == nil {
		return false
	}
	listed, use, err := f.Parse(before.text)
	if err != nil { // it does not fit the new config
		return false
	}
	use()
	f.good = newCopy(before.text, listed)
	f.complain(doubt)
	return true
}

// Follow checks the file until ctx is done.
func (f *File) Follow(ctx context.Context) {
	ticker := time.NewTicker(cmp.Or(f.Every, Every))
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

// look reads the file if it has changed, but not since the last check: it may still be being written.
func (f *File) look() {
	sum, err := f.sum()
	before := f.seen
	f.seen = sum
	switch {
	case err != nil:
		f.judged = fileSum{} // any content is new
		f.complain(err)
	case sum == f.judged:
	case sum == before:
		f.readAgain(sum)
	}
}

// readAgain puts the copy with that sum into effect, unless something is wrong with it.
func (f *File) readAgain(want fileSum) {
	text, sum, err := f.read()
	if sum.read && sum != want { // it has changed since
		f.seen = sum
		return
	}
	f.judged = sum
	var listed Entries
	var use func()
	if err == nil {
		err = f.good.doubtEnd(text)
	}
	if err == nil {
		listed, use, err = f.Parse(text)
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
	f.Memory.swap(f.good)
	f.Log.Info("file read again", zap.String("file", f.Said))
	f.warnOfLoss(before)
}

// warnOfLoss logs how much the copy in effect lacks compared with the previous one.
func (f *File) warnOfLoss(before fileCopy) {
	if lost := before.listed.MissingFrom(f.good.listed); lost > 0 {
		f.Log.Warn("file lists less than before", zap.String("file", f.Said), zap.Int(f.Kind+"_before", before.listed.Count()),
			zap.Int(f.Kind+"_now", f.good.listed.Count()), zap.Int(f.Kind+"_lost", lost))
	}
}

// complain reports an unusable file, once for each fault.
func (f *File) complain(err error) {
	if f.bad == err.Error() {
		return
	}
	f.bad = err.Error()
	f.Log.Error("file cannot be used, its last good copy stays in force", zap.String("file", f.Said), zap.Error(err))
	if f.Tell != nil {
		f.Tell(err)
	}
}

// sum returns the sum of the file's content.
func (f *File) sum() (fileSum, error) {
	var sum maphash.Hash
	sum.SetSeed(f.seed)
	size, err := readFile(f.Path, &sum)
	if err != nil {
		return fileSum{}, err
	}
	return fileSum{sum.Sum64(), size, true}, nil
}

// read returns the file's content with its sum. The sum is set whenever the file could be read, even if its
// content is unusable.
func (f *File) read() ([]byte, fileSum, error) {
	var text byteSink
	size, err := readFile(f.Path, &text)
	if err != nil {
		return nil, fileSum{}, err
	}
	sum := fileSum{maphash.Bytes(f.seed, text), size, true}
	if mark := ByteOrderMark(text); mark != "" {
		return nil, sum, fmt.Errorf("it begins with a byte-order mark (%s); want UTF-8 without one", mark)
	}
	return text, sum, nil
}
