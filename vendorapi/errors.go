package vendorapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What an Error is, to be tested with errors.Is.
var (
	// ErrWebhookURLSet is a 400: the instance sends to its webhookUrl, so nothing can be received.
	ErrWebhookURLSet = errors.New("a webhookUrl is set for the instance")
	// ErrInvalid is any other 400.
	ErrInvalid = errors.New("the API does not take the request")
	// ErrUnauthorized is a 401: the token is wrong.
	ErrUnauthorized = errors.New("the API does not take the token")
	// ErrForbidden is a 403 or 404: the instance's id, or the address of the API, is wrong.
	ErrForbidden = errors.New("the API does not know the instance at this address")
	// ErrTooManyRequests is a 429.
	ErrTooManyRequests = errors.New("too many requests")
	// ErrQuota is a 466, or Telegram's 469: the tariff allows no more.
	ErrQuota = errors.New("the quota of the instance's tariff is used up")
	// ErrUnavailable is a status of 500 and above, or no answer at all: retry.
	ErrUnavailable = errors.New("the API is not available")
)

// Error is a call that was not answered as documented. It never contains the token.
type Error struct {
	Method     string        // the API's method, such as receiveNotification
	Status     int           // 0 without an answer
	Message    string        // from the API, at most 200 bytes, or the network's error
	RetryAfter time.Duration // how long the API asks to wait; 0 if it does not

	err error // the network's, for errors.Is
}

const (
	statusQuota         = 466
	statusQuotaTelegram = 469
)

func (e *Error) Error() string {
	text := e.Method + ": "
	switch kind := e.kind(); {
	case kind != nil && e.Message != "":
		text += kind.Error() + ": " + e.Message
	case kind != nil:
		text += kind.Error()
	case e.Message != "":
		text += e.Message
	default:
		text += "the API does not answer as documented"
	}
	if e.Status != 0 && e.Status != http.StatusOK {
		text += fmt.Sprintf(" (status %d)", e.Status)
	}
	return text
}

// Is reports whether target is the kind of this error.
func (e *Error) Is(target error) bool { return target != nil && target == e.kind() }

// Unwrap returns the network's error, if there is one.
func (e *Error) Unwrap() error { return e.err }

func (e *Error) kind() error {
	switch {
	case e.Status == 0 && e.err != nil, e.Status >= http.StatusInternalServerError:
		return ErrUnavailable
	case e.Status == http.StatusBadRequest && strings.Contains(strings.ToLower(e.Message), "webhook url is set"):
		return ErrWebhookURLSet
	case e.Status == http.StatusBadRequest:
		return ErrInvalid
	case e.Status == http.StatusUnauthorized:
		return ErrUnauthorized
	case e.Status == http.StatusForbidden, e.Status == http.StatusNotFound:
		return ErrForbidden
	case e.Status == http.StatusTooManyRequests:
		return ErrTooManyRequests
	case e.Status == statusQuota, e.Status == statusQuotaTelegram:
		return ErrQuota
	}
	return nil
}
