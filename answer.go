package greenapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// An answer is what became of one attempt.
type answer struct {
	result     result
	handler    string        // the upstream; "" if there is none or it is not known
	status     int           // what the handler said; 0 if it said nothing
	text       string        // the beginning of what it said, if that was no 2xx
	retryAfter time.Duration // what it asked for
	err        error         // why it said nothing
}

type result int

const (
	taken        result = iota // a complete 2xx
	notNow                     // not reachable, or says so
	noneFree                   // nobody was asked: all are full, asked for time, or have answered
	brokenOff                  // after the body was sent
	timedOut                   // after the body was sent
	handlerError               // another 5xx
	misrouted                  // 3xx, 401, 403, 404, 405: not what a handler would say
	refusedByIt                // another 4xx
	nobody                     // nothing was there to answer
)

// Why a handler said nothing.
var (
	errNotConnected  = errors.New("handler could not be connected to")
	errTimedOut      = errors.New("handler did not answer in time")
	errNoneAvailable = errors.New("no handler available")
)

// byStatus says what a handler's status means.
func byStatus(status int) result {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return notNow
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return misrouted
	}
	switch status / 100 {
	case 2:
		return taken
	case 3:
		return misrouted
	case 4:
		return refusedByIt
	case 5:
		return handlerError
	}
	return brokenOff // no HTTP
}

// maxAnswerText is how many bytes of a handler's answer are kept.
const maxAnswerText = 1 << 10

// retryAfter reads how long a handler wants to be left alone: seconds or a date (RFC 9110, 10.2.3).
// 0 if it does not say.
func retryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}
