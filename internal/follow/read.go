package follow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
)

// maxRead is the maximum size of a file in bytes.
const maxRead = 16 << 20

// readFile reads a file. Its errors do not contain the path, which may be the value of a placeholder.
func readFile(path string, into io.Writer) (int64, error) {
	if err := WantRegular(path); err != nil {
		return 0, err
	}
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return 0, withoutPath(err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	size, err := io.Copy(into, io.LimitReader(file, maxRead+1))
	if err == nil && size > maxRead {
		return 0, fmt.Errorf("more than %d bytes; want at most as many", maxRead)
	}
	return size, withoutPath(err)
}

// byteSink is a writer into memory.
type byteSink []byte

func (s *byteSink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// ErrNotRegular is WantRegular's error for a pipe, a device or a directory.
var ErrNotRegular = errors.New("not a regular file")

// WantRegular returns an error unless the file is regular: a pipe or a device may never end.
func WantRegular(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return ErrNotRegular
	}
	return nil
}

// withoutPath removes the path from a file system error.
func withoutPath(err error) error {
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
		return wrapped.Err
	}
	return err
}

// ByteOrderMark names the mark at the beginning of a text, "" if there is none. Editors on Windows write
// it, and it is invisible.
func ByteOrderMark(text []byte) string {
	for _, mark := range []struct{ name, bytes string }{{"UTF-8", "\xef\xbb\xbf"}, {"UTF-16", "\xff\xfe"}, {"UTF-16", "\xfe\xff"}} {
		if bytes.HasPrefix(text, []byte(mark.bytes)) {
			return mark.name
		}
	}
	return ""
}

// Lines returns the lines of a list, each with its number and its words. It skips empty lines and comments,
// which go from a # to the end of the line.
func Lines(text []byte) iter.Seq2[int, []string] {
	return func(yield func(int, []string) bool) {
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			if words := strings.Fields(withoutComment(line)); len(words) > 0 && !yield(number, words) {
				return
			}
		}
	}
}

// withoutComment removes a line's comment. It starts at a # at the beginning of the line or after white
// space.
func withoutComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}
