package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// asking is a request to the edge.
type asking struct {
	method, path string // behind /green_api/
	query, form  url.Values
	accept       string
	last         string   // Last-Event-ID
	raw          bool     // its answer is handed on as it is
	only         []string // names of the answer's members that are handed on, as they are
	download     string   // name of the file that the answer is kept in
}

// request returns the request. It ends with the session.
func (a asking) request(ctx context.Context, one *call) (*http.Request, error) {
	target := "/green_api/" + a.path
	if len(a.query) > 0 {
		target += "?" + a.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, a.method, target, strings.NewReader(a.form.Encode()))
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = one.r.RemoteAddr
	if len(a.form) > 0 {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if a.accept != "" {
		r.Header.Set("Accept", a.accept)
	}
	if a.last != "" {
		r.Header.Set("Last-Event-ID", a.last)
	}
	return r, nil
}

// context returns one that ends with the request, or when the session is over.
func (one *call) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(one.r.Context())
	stop := context.AfterFunc(one.s.context, cancel)
	return ctx, func() { stop(); cancel() }
}

// mostRead is how much is read of an answer that is read as a whole, in bytes.
const mostRead = 1 << 20

// ask returns the answer to a question that has a short one.
func (c *Console) ask(one *call, a asking) ([]byte, error) {
	ctx, cancel := one.context()
	defer cancel()
	r, err := a.request(ctx, one)
	if err != nil {
		return nil, err
	}
	kept := &keeper{header: make(http.Header)}
	c.o.API.ServeHTTP(kept, r)
	if kept.status >= http.StatusMultipleChoices {
		return nil, failed(kept.status, kept.text.Bytes())
	}
	return kept.text.Bytes(), nil
}

// A keeper keeps an answer.
type keeper struct {
	header http.Header
	status int
	text   bytes.Buffer
}

func (k *keeper) Header() http.Header { return k.header }

func (k *keeper) WriteHeader(status int) {
	if k.status == 0 && status >= http.StatusOK {
		k.status = status
	}
}

func (k *keeper) Write(text []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	if k.text.Len()+len(text) > mostRead {
		return 0, errors.New("too long")
	}
	return k.text.Write(text)
}

func (k *keeper) Flush() {}

// failed returns the failure of an answer that is an error. That the edge refuses us is no business of a browser's.
func failed(status int, text []byte) *failure {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = fmt.Sprintf("the edge answers with status %d", status)
	}
	if status < http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden {
		status = http.StatusBadGateway
	}
	return &failure{status, said.Error}
}

// relay hands a request on to the edge, and its answer back, bit by bit.
func (c *Console) relay(one *call, a asking) {
	ctx, cancel := one.context()
	defer cancel()
	r, err := a.request(ctx, one)
	if err != nil {
		refuse(one.w, http.StatusBadRequest, "no such page")
		return
	}
	to := &answer{w: one.w, rc: http.NewResponseController(one.w), cancel: cancel, asking: a, header: make(http.Header)}
	if !a.raw {
		to.clean(c.seesPhones(one.s))
	}
	defer func() { _ = to.close(io.ErrUnexpectedEOF) }() // if the edge panics
	c.o.API.ServeHTTP(to, r)
	to.end(ctx.Err() == nil || a.accept == eventStream)
}

// seesPhones reports whether a session sees phone numbers here. It may have asked for them at a console that shows bodies, or
// before the config was another.
func (c *Console) seesPhones(s *session) bool { return c.o.Bodies && s.seesPhones() }

const eventStream = "text/event-stream"

// How long a browser may take to read what is written at once.
const (
	writeTime  = 30 * time.Second
	streamTime = 5 * time.Second // of what is old when it comes late
)

// An answer is what the edge writes to. What it writes is cleaned on its way to the browser, unless it goes raw.
type answer struct {
	asking
	w      http.ResponseWriter
	rc     *http.ResponseController
	cancel context.CancelFunc
	header http.Header
	status int
	said   bytes.Buffer // of an error

	pipe    *io.PipeWriter // to the cleaning; nil if raw
	cleaned chan error
	begun   bool // something was written to the browser
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
}

func (a *answer) Write(text []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.status >= http.StatusMultipleChoices:
		if a.said.Len() < mostRead {
			a.said.Write(text)
		}
		return len(text), nil
	case a.pipe != nil:
		return a.pipe.Write(text)
	}
	return a.write(text)
}

// FlushError sends what was written. What is cleaned is sent by itself, value by value.
func (a *answer) FlushError() error {
	if a.pipe != nil || a.status >= http.StatusMultipleChoices {
		return nil
	}
	a.WriteHeader(http.StatusOK)
	a.begin()
	return a.flush()
}

// Flush is FlushError for who does not ask for the error.
func (a *answer) Flush() { _ = a.FlushError() }

// begin writes the header, once.
func (a *answer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if !slices.Contains([]string{"application/json", "application/x-ndjson", eventStream}, kind) {
		kind = "application/json"
	}
	h := a.w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Accel-Buffering", "no") // for an nginx in between
	if a.download != "" {
		h.Set("Content-Disposition", `attachment; filename="`+a.download+`"`)
	}
	a.w.WriteHeader(a.status)
}

// write writes to the browser.
func (a *answer) write(text []byte) (int, error) {
	a.begin()
	defer a.hurry()()
	return a.w.Write(text)
}

func (a *answer) flush() error {
	defer a.hurry()()
	return a.rc.Flush()
}

// hurry lets the browser take only so long, until what it returns is called: HTTP/2 ends an answer at the deadline even if
// nothing is being written, and the next value may take longer than that.
func (a *answer) hurry() (done func()) {
	patience := writeTime
	if a.accept == eventStream {
		patience = streamTime
	}
	_ = a.rc.SetWriteDeadline(time.Now().Add(patience)) // not every writer has one
	return func() { _ = a.rc.SetWriteDeadline(time.Time{}) }
}

// clean begins the cleaning of an answer.
func (a *answer) clean(phones bool) {
	from, pipe := io.Pipe()
	a.pipe, a.cleaned = pipe, make(chan error, 1)
	go func() {
		var err error
		if a.only != nil {
			err = pick(writerFunc(a.write), from, a.only)
		} else {
			err = a.copyCleaned(from, phones)
		}
		_ = from.CloseWithError(err) // the edge need not go on
		a.cleaned <- err
	}()
}

// copyCleaned copies values until there are none. Each is sent at once, because the next one may take long.
func (a *answer) copyCleaned(from io.Reader, phones bool) error {
	c := newCleaner(writerFunc(a.write), from, phones)
	for {
		if err := c.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := a.flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(text []byte) (int, error) { return f(text) }

// close ends the cleaning, and returns why it ended early.
func (a *answer) close(why error) (err error) {
	if a.pipe != nil {
		_ = a.pipe.CloseWithError(why) // never fails
		err = <-a.cleaned
		a.pipe = nil
	}
	return err
}

// end ends an answer. If it is not whole, the browser must not take it for one.
func (a *answer) end(whole bool) {
	why := io.EOF
	if !whole {
		why = io.ErrUnexpectedEOF
	}
	err := a.close(why)
	switch {
	case a.begun && (err != nil || !whole):
		panic(http.ErrAbortHandler)
	case a.begun:
	case a.status >= http.StatusMultipleChoices:
		f := failed(a.status, a.said.Bytes())
		refuse(a.w, f.status, f.why)
	case err != nil:
		refuse(a.w, http.StatusBadGateway, "the answer of the edge cannot be read")
	default: // an empty list
		a.WriteHeader(http.StatusOK)
		a.begin()
	}
	a.hurry() // the server sends what is left
}
