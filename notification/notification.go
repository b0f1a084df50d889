// Package notification knows the format of GREEN-API's webhook bodies: it parses one strictly,
// checks it against JSON Schemas, and has an example of each kind.
//
// What a body may hold is the vendor's business and changes without notice, so a schema here
// demands only what every known genuine body has, and checks the form of the rest where it is
// present. Nothing forbids what it does not know (GREEN-API docs: Recommendations for processing
// incoming notifications, read 2026-07).
package notification

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Notification is what the edge needs to know of one body. Fields of a body that are absent or
// of another form than expected are empty here; Schemas.Validate tells.
type Notification struct {
	Type      string // typeWebhook, never empty
	Message   string // messageData.typeMessage; "" when there is none
	Instance  string // instanceData.idInstance, 1 to 20 digits without leading zeros
	Chat      string // senderData.chatId, else chatId, else (incomingCall only) from
	ID        string // idMessage, unique within one chat only
	Timestamp int64  // Unix seconds; 0 if absent

	root map[string]any // what Schemas.Validate checks, so that one parse decides all
}

// Parse reads one body: exactly one JSON object, strictly (see SyntaxError for what is refused),
// with a typeWebhook and an instanceData.idInstance. The error is always a *SyntaxError.
//
// Inside string values it is lenient: lone surrogates and broken UTF-8 become U+FFFD in the
// fields, because a phone may send them and the notification must not be lost for its text.
func Parse(body []byte) (*Notification, error) {
	root, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	n := &Notification{root: root}
	if err := n.readEnvelope(body); err != nil {
		return nil, err
	}

	message := object(root["messageData"])
	n.Message = text(message["typeMessage"])
	n.ID = text(root["idMessage"])
	n.Timestamp = seconds(root["timestamp"])
	n.Chat = text(object(root["senderData"])["chatId"])
	if n.Chat == "" {
		n.Chat = text(root["chatId"])
	}
	if n.Chat == "" && n.Type == "incomingCall" {
		n.Chat = text(root["from"])
	}
	return n, nil
}

// Event returns what stays the same in all notifications of one event, and is another for any
// other; "" for a body without idMessage, of which only the whole body tells. idMessage alone would
// not do: a message and its statuses share it, and it is unique within one chat only.
func (n *Notification) Event() string {
	if n.ID == "" {
		return ""
	}
	return strings.Join([]string{
		n.Instance, n.Type, n.Chat, n.ID, text(n.root["status"]), text(n.root["stateInstance"]), n.Message,
	}, "\x00")
}

// readEnvelope reads the two fields without which a body is no notification: what it is and whose.
func (n *Notification) readEnvelope(body []byte) *SyntaxError {
	typ, there := n.root["typeWebhook"]
	if !there {
		return semanticError(body, causeNoType, "typeWebhook")
	}
	if n.Type = text(typ); n.Type == "" {
		return semanticError(body, causeBadType, "typeWebhook")
	}

	instance, there := n.root["instanceData"]
	if !there {
		return semanticError(body, causeNoInstanceData, "instanceData")
	}
	data, ok := instance.(map[string]any)
	if !ok {
		return semanticError(body, causeBadInstanceData, "instanceData")
	}
	id, there := data["idInstance"]
	if !there {
		return semanticError(body, causeNoInstance, "instanceData", "idInstance")
	}
	if n.Instance, ok = instanceID(id); !ok {
		return semanticError(body, causeBadInstance, "instanceData", "idInstance")
	}
	return nil
}

// instanceID accepts an integer or, as some clients write it, a string of digits. Leading zeros of
// a string go: a handler may read a number from it, so "07" must not pass for another instance than 7.
func instanceID(v any) (string, bool) {
	var digits string
	switch v := v.(type) {
	case json.Number:
		digits = string(v)
	case string:
		digits = v
	}
	if len(digits) < 1 || len(digits) > 20 {
		return "", false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	digits = strings.TrimLeft(digits[:len(digits)-1], "0") + digits[len(digits)-1:]
	return digits, true
}

// seconds reads a timestamp. JSON Schema counts 1.7e9 as an integer, so it is read as one.
func seconds(v any) int64 {
	number, ok := v.(json.Number)
	if !ok {
		return 0
	}
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

// object and text read nothing from a value of another type: a nil map may be read, too.

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
