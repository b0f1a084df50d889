package api

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// lines writes one JSON object per line.
type lines struct {
	mu     sync.Mutex
	to     http.ResponseWriter
	encode func(any) error
	begun  bool
}

// LineError is a line about something that went wrong after the first line of an answer. Entries and
// results begin with their ID; this never does.
type LineError struct {
	Error string `json:"error"`
	Entry string `json:"entry,omitempty"` // ID of an unreadable entry
}

func answer(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(outcome.JSONWriter{To: w})
	encoder.SetEscapeHTML(false)
	return &lines{to: w, encode: encoder.Encode}
}

func (l *lines) write(line any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = true
	return l.encode(line)
}

// send writes a line and flushes it, because the next one may take long.
func (l *lines) send(line any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = true
	if err := l.encode(line); err != nil {
		return err
	}
	return http.NewResponseController(l.to).Flush()
}

// unreadable reports that an entry could not be read. The entries behind it follow.
func (l *lines) unreadable(id string, err error) error {
	return l.write(LineError{err.Error(), id})
}

// end reports why the answer ends early: with a line if one has already been sent, otherwise with the
// returned error.
func (l *lines) end(err error) error {
	if err == nil || !l.begun {
		return err
	}
	_ = l.write(LineError{Error: err.Error()}) // the client may be gone
	return nil
}
