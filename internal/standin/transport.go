package standin

import (
	"errors"
	"net/http"
	"net/http/httptest"
)

// Transport returns a way to call the API without a socket, so that tests can use fake time.
func (s *Server) Transport() http.RoundTripper { return Direct(s) }

// Direct returns a way to call any handler without a socket. If the handler panics with
// http.ErrAbortHandler, the connection breaks.
func Direct(h http.Handler) http.RoundTripper { return direct{h} }

type direct struct{ to http.Handler }

var errDropped = errors.New("connection reset")

// RoundTrip calls the handler. A caller that gives up does not wait for the answer.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	answered := make(chan bool, 1)
	go func() {
		whole := false
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a value of panic, not an error
				panic(p)
			}
			answered <- whole
		}()
		d.to.ServeHTTP(w, r)
		whole = true
	}()
	var whole bool
	select {
	case whole = <-answered:
	case <-r.Context().Done():
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if !whole {
		return nil, errDropped
	}
	return w.Result(), nil
}
