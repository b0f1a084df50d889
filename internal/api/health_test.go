package api

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestServeHealth: the status says whether the edge is ready, and the answer why not.
func TestServeHealth(t *testing.T) {
	for _, test := range []struct {
		method string
		health Health
		status int // 0 for a refusal
		want   string
	}{
		{"GET", Health{Config: "ab", Loaded: "2026-11-21T15:04:05Z"}, 200, `{"ready":true,"reasons":[],"config":"ab","loaded":"2026-11-21T15:04:05Z"}`},
		{"HEAD", Health{}, 200, `{"ready":true,"reasons":[],"config":"","loaded":""}`},
		{"GET", Health{Reasons: []Unready{QuarantineClosed, Ending}}, 503, `{"ready":false,"reasons":["quarantine_closed","ending"],"config":"","loaded":""}`},
		{"GET", Health{Ready: true, Reasons: []Unready{Starting}}, 503, `{"ready":false,"reasons":["starting"],"config":"","loaded":""}`},
		{"POST", Health{}, 0, ""},
	} {
		w := httptest.NewRecorder()
		err := ServeHealth(w, httptest.NewRequestWithContext(t.Context(), test.method, HealthPath, nil), func() Health { return test.health })
		var said *Error
		if test.status == 0 {
			if !errors.As(err, &said) || said.Status != 405 {
				t.Errorf("%s: %v", test.method, err)
			}
			continue
		}
		if got := strings.TrimSpace(w.Body.String()); err != nil || w.Code != test.status || got != test.want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %+v: %v, status %d, %s", test.method, test.health, err, w.Code, got)
		}
	}
}
