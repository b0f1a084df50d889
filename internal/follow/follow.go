// Package follow reads a file of the operator's and reads it again whenever it changes. If a new version is
// unusable, or seems to have been cut short, the last good copy stays in effect.
package follow

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"go.uber.org/zap"
)

// Every is how often a file is looked at. The kernel does not watch it: that misses files that are replaced
// by a link, as Kubernetes does, and files on a network.
const Every = time.Second

// A File is a file that is followed. Load comes first, then Follow.
type File struct {
	Said  string // the path as the config says it, for logs and errors
	Path  string
	Kind  string // what it lists, in the plural, for logs
	Parse Parse

	Log  *zap.Logger
	Tell func(error) // is told once of each fault of the file; may be nil

	Memory *Memory // keeps the copy in effect for the next config; may be nil
	Forced bool    // Load takes the file as it stands, however much is missing

	good fileCopy // the copy in effect

	seed   maphash.Seed
	judged fileSum // the content that was last read, good or bad
	seen   fileSum // the content at the look before
	bad    string  // the fault that was last reported
}

// Parse reads a copy of a file. It returns what the copy lists, and use, which puts it into effect.
type Parse func(text []byte) (listed Entries, use func(), err error)

// A fileSum tells one content from another. The time of a file does not: tools set it, and clocks
// are coarse. The zero value stands for no content.
type fileSum struct {
	sum  uint64
	size int64
	read bool
}

// Load reads the file for the first time. A file that cannot be used is an error. If it seems to have
// been cut short since the config before, the copy of that config stays in effect, unless Forced.
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

// keepBefore puts the copy of the config before into effect if the file as it is now seems to have been cut
// short. It reports whether it did.
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
	if err != nil { // it does not go with the new config
		return false
	}
	use()
	f.good = newCopy(before.text, listed)
	f.complain(doubt)
	return true
}

// Follow looks at the file until ctx is done.
func (f *File) Follow(ctx context.Context) {
	ticker := time.NewTicker(Every)
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

// look reads the file if it has changed, but not since the look before: somebody may still be writing it.
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
	if sum.read && sum != want { // changed since
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

// warnOfLoss logs how much less the copy in effect lists than the one before it.
func (f *File) warnOfLoss(before fileCopy) {
	if lost := before.listed.MissingFrom(f.good.listed); lost > 0 {
		f.Log.Warn("file lists less than before", zap.String("file", f.Said), zap.Int(f.Kind+"_before", before.listed.Count()),
			zap.Int(f.Kind+"_now", f.good.listed.Count()), zap.Int(f.Kind+"_lost", lost))
	}
}

// complain reports a file that cannot be used, once for each fault.
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

// sum is the sum of the file's content.
func (f *File) sum() (fileSum, error) {
	var sum maphash.Hash
	sum.SetSeed(f.seed)
	size, err := readFile(f.Path, &sum)
	if err != nil {
		return fileSum{}, err
	}
	return fileSum{sum.Sum64(), size, true}, nil
}

// read returns the file's content, and its sum as soon as that is known.
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
