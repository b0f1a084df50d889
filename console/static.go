package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed all:static
var files embed.FS

const (
	indexName  = "index.html"
	assetsPath = "assets/"
)

// static is the page with all that belongs to it.
type static struct {
	dir   string // assets/HASH/
	index *file
	files map[string]*file // by their path behind dir
}

// A file is kept as it is sent.
type file struct {
	kind         string // Content-Type
	text, packed []byte // packed is nil if it is no smaller
	tag          string
}

// newStatic reads what is below static. One hash is in the path of all files, so that they find each other.
func newStatic(from fs.FS) (*static, error) {
	s := &static{files: make(map[string]*file)}
	all := sha256.New()
	from, err := fs.Sub(from, "static")
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%s\x00%d\x00", name, len(text))
		_, _ = all.Write(text) // never fails
		s.files[name] = &file{kind: kindOf(name), text: text}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.dir = assetsPath + hex.EncodeToString(all.Sum(nil)[:8]) + "/"
	if s.index = s.files[indexName]; s.index == nil {
		return nil, fmt.Errorf("static: no %s", indexName)
	}
	delete(s.files, indexName)
	for _, quote := range []string{`"`, `'`} {
		s.index.text = bytes.ReplaceAll(s.index.text, []byte(quote+assetsPath), []byte(quote+s.dir))
	}
	s.index.pack()
	for _, f := range s.files {
		f.pack()
	}
	return s, nil
}

func kindOf(name string) string {
	switch path.Ext(name) {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".json":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".ico":
		return "image/vnd.microsoft.icon"
	case ".woff2":
		return "font/woff2"
	}
	return "text/plain; charset=utf-8"
}

// pack compresses a file, once: it is asked for by each browser.
func (f *file) pack() {
	sum := sha256.Sum256(f.text)
	f.tag = hex.EncodeToString(sum[:8])
	var out bytes.Buffer
	to, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a level that there is
	_, _ = to.Write(f.text)                                  // into memory
	if to.Close() == nil && out.Len() < len(f.text) {
		f.packed = out.Bytes()
	}
}

// serve answers with a file.
func (f *file) serve(w http.ResponseWriter, r *http.Request, caching string) {
	text, tag := f.text, `"`+f.tag+`"`
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", caching)
	h.Set("Vary", "Accept-Encoding, Cookie")
	if f.packed != nil && takesGzip(r) {
		text, tag = f.packed, `"`+f.tag+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Etag", tag)
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(known), "W/") == tag {
			h.Del("Content-Type")
			h.Del("Content-Encoding")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // the client may be gone
	}
}

func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, parameters, err := mime.ParseMediaType("x/" + strings.TrimSpace(part))
		if err != nil || name != "x/gzip" {
			continue
		}
		q, weighted := parameters["q"]
		if !weighted {
			return true
		}
		weight, err := strconv.ParseFloat(q, 64)
		return err == nil && weight > 0
	}
	return false
}
