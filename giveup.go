package greenapi

import (
	"fmt"
	"strconv"

	"github.com/caddyserver/caddy/v2"
)

// DeadLetter is a number of failures; in JSON a number above 0, or "off".
type DeadLetter int

const deadLetterOff DeadLetter = -1

// MarshalJSON writes "off" or a number.
func (d DeadLetter) MarshalJSON() ([]byte, error) {
	if d == deadLetterOff {
		return []byte(`"off"`), nil
	}
	return strconv.AppendInt(nil, int64(d), 10), nil
}

// UnmarshalJSON reads "off" or a number above 0.
func (d *DeadLetter) UnmarshalJSON(text []byte) error {
	if string(text) == `"off"` {
		*d = deadLetterOff
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return fmt.Errorf("dead_letter: invalid value %s; want a number of failures above 0, or off", text)
	}
	*d = DeadLetter(n)
	return nil
}

// DeadLetterAfter is a duration; in JSON one above 0, or "off".
type DeadLetterAfter caddy.Duration

const deadLetterAfterOff DeadLetterAfter = -1

// MarshalJSON writes "off" or nanoseconds.
func (d DeadLetterAfter) MarshalJSON() ([]byte, error) {
	if d == deadLetterAfterOff {
		return []byte(`"off"`), nil
	}
	return strconv.AppendInt(nil, int64(d), 10), nil
}

// UnmarshalJSON reads "off" or a duration above 0.
func (d *DeadLetterAfter) UnmarshalJSON(text []byte) error {
	if string(text) == `"off"` {
		*d = deadLetterAfterOff
		return nil
	}
	if err := (*caddy.Duration)(d).UnmarshalJSON(text); err != nil || *d <= 0 {
		return fmt.Errorf("dead_letter_after: invalid value %s; want a duration above 0s, such as \"1h\", or off", text)
	}
	return nil
}
