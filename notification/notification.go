// Package notification knows the format of GREEN-API's webhook bodies: it parses one strictly,
// checks it against JSON Schemas, and has an example of each kind.
//
// What a body contains is up to the vendor and changes without notice. So a schema here requires only what
// every known genuine body has, and checks the form of the rest if it is present. No schema forbids what it
// does not know (GREEN-API docs: Recommendations for processing incoming notifications, read 2026-07).
package notification

import (
	"strconv"
)

// ContentType is GREEN-API's Content-Type for a body (GREEN-API docs: "Working with incoming webhooks",
// read 2026-07).
const ContentType = "application/json; charset=utf-8"

// Notification is what the edge needs to know about a body. Fields that are absent from the body, or of
// another form than expected, are empty here; Schemas.Validate reports that.
type Notification struct {
	Type      string // typeWebhook, never empty
	Message   string // messageData.typeMessage; "" when there is none
	Instance  string // instanceData.idInstance, 1 to 20 digits without leading zeros
	Chat      string // senderData.chatId, else chatId, else (incomingCall only) from
	ID        string // idMessage, unique within one chat only
	Timestamp int64  // Unix seconds; 0 if absent

	body    []byte   // what was parsed, so that these very bytes are what is judged
	checked *Schemas // the schemas it was checked against in the same pass, if any
	met     bool     // it met them
}

// Parse parses a body: exactly one JSON object, strictly (see SyntaxError for what is refused), with a
// typeWebhook and an instanceData.idInstance. The error is always a *SyntaxError.
//
// Inside string values it is lenient: lone surrogates and broken UTF-8 become U+FFFD in the fields, because
// a phone may send them, and a notification must not be lost for its text.
//
// The notification keeps the body, which must not change while it is in use. To validate it, too,
// Schemas.Parse is faster.
func Parse(body []byte) (*Notification, error) {
	return parse(body, nil)
}

// Parse parses a body as the function Parse does, and checks it in the same pass. For a body that meets its
// schemas, Validate then has nothing left to do.
func (s *Schemas) Parse(body []byte) (*Notification, error) {
	return parse(body, s)
}

func parse(body []byte, s *Schemas) (*Notification, error) {
	known := envelopeNames
	if s != nil {
		known = s.names
	}
	pass := scans.Get().(*scan)
	n := pass.notification(body, known)
	if n != nil && s != nil {
		n.checked, n.met = s, s.accept(pass, n.Type, n.Message)
	}
	twice := pass.twice
	pass.release()
	if n == nil {
		return nil, refusal(body, twice)
	}
	return n, nil
}

// seconds parses a timestamp. JSON Schema counts 1.7e9 as an integer, so seconds accepts it.
func seconds(number []byte) int64 {
	if n, err := strconv.ParseInt(string(number), 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(string(number), 64)
	const exact = 1 << 53
	if err != nil || f < -exact || f > exact || f != float64(int64(f)) {
		return 0
	}
	return int64(f)
}

// digits returns the digits of an idInstance: an integer or, as some clients write it, a string of digits.
// Leading zeros of a string are removed: a handler may read a number from it, so "07" must not pass for
// another instance than 7.
func digits(id string) (string, bool) {
	if len(id) < 1 || len(id) > 20 {
		return "", false
	}
	for _, c := range []byte(id) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	for len(id) > 1 && id[0] == '0' {
		id = id[1:]
	}
	return id, true
}
