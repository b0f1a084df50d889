package greenapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const reasonBadFile = "bad_file"

// followEvery is how often a file is looked at. It is not watched by the kernel: that misses files
// that are replaced by a link, as Kubernetes does, and what lies on a network.
var followEvery = time.Second // shorter in tests

// A followed file is read at load and again whenever it changes. A bad one keeps the last good copy
// in force.
type followed struct {
	path string
	use  func(text []byte) error // takes a copy into force, or says what is wrong with it

	// After a change that cannot be used.
	logger *zap.Logger
	tell   func(note) // may be nil

	last os.FileInfo // that is in force
	seen os.FileInfo // at the look before
	bad  string      // what was last said to be wrong
}

// maxFollowed is the longest file that is read.
const maxFollowed = 16 << 20

// load reads the file for the first time. A file that cannot be used is an error.
func (f *followed) load() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if err := f.read(info); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.last = info
	return nil
}

func (f *followed) read(info os.FileInfo) error {
	if info.Size() > maxFollowed {
		return fmt.Errorf("%d bytes; want at most %d", info.Size(), maxFollowed)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	return f.use(text)
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
	info, err := os.Stat(f.path)
	if err == nil && same(info, f.last) {
		return
	}
	before := f.seen
	f.seen = info
	if err == nil && !same(info, before) {
		return
	}
	if err == nil {
		f.last = info
		err = f.read(info)
	} else {
		f.last = nil // whatever comes is new
	}
	if err != nil {
		f.complain(err)
		return
	}
	f.bad = ""
	f.logger.Info("file read again", zap.String("file", f.path))
}

func same(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
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

// complain tells of a file that cannot be used, once for each thing that is wrong with it.
func (f *followed) complain(err error) {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err
	}
	if f.bad == err.Error() {
		return
	}
	f.bad = err.Error()
	f.logger.Error("file cannot be used, its last good copy stays in force", zap.String("file", f.path), zap.Error(err))
	if f.tell != nil {
		f.tell(note{reason: reasonBadFile, typ: typeNone, level: zap.ErrorLevel, more: f.path + ": " + err.Error() + ".", at: time.Now()})
	}
}

// followFile loads a file and follows it as long as the config runs.
func followFile(ctx caddy.Context, path string, tell func(note), use func([]byte) error) error {
	resolved, err := resolve(path)
	if err != nil {
		return err
	}
	f := &followed{path: resolved, use: use, logger: ctx.Logger(), tell: tell}
	if err := f.load(); err != nil {
		return err
	}
	go f.follow(ctx)
	return nil
}
