package delivery

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// An Answer is the result of one attempt.
type Answer struct {
	Result     Result
	Handler    string        // the upstream; "" if none or unknown
	Status     int           // the handler's status; 0 if it did not answer
	Text       string        // the beginning of its answer, unless it was 2xx
	RetryAfter time.Duration // how long the handler asked to be left alone
	Err        error         // why it did not answer
	Ended      time.Time     // set by the loop of attempts
}

// A Result is what an attempt came to.
type Result int

// The results, each with what the loop of attempts makes of it in decide.
const (
	Taken        Result = iota // a complete 2xx
	NotNow                     // not reachable, or the handler said so
	NoneFree                   // no handler was asked: all are full, asked for time or have answered
	BrokenOff                  // after the body was sent
	TimedOut                   // after the body was sent
	HandlerError               // another 5xx
	Misrouted                  // 3xx, 401, 403, 404, 405: not what a handler would say
	RefusedByIt                // another 4xx
	Nobody                     // nothing was there to answer
)

// Why a handler did not answer.
var (
	ErrNotConnected  = errors.New("handler could not be connected to")
	ErrTimedOut      = errors.New("handler did not answer in time")
	ErrNoneAvailable = errors.New("no handler available")
)

// ByStatus returns what a handler's status means.
func ByStatus(status int) Result {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return NotNow
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return Misrouted
	}
	switch status / 100 {
	case 2:
		return Taken
	case 3:
		return Misrouted
	case 4:
		return RefusedByIt
	case 5:
		return HandlerError
	}
	return BrokenOff // not an HTTP status
}

// MaxAnswerText is how many bytes of a handler's answer are kept.
const MaxAnswerText = 1 << 10

// RetryAfter returns how long a handler wants to be left alone, given as seconds or a date (RFC 9110,
// 10.2.3), or 0 if it does not say.
func RetryAfter(header http.Header) time.Duration {
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
