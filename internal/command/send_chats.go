package command

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// maxChats is how many phone numbers chatID can invent.
const maxChats = 1_000_000

// findChats finds the chat of each body, unless all stay in theirs.
func (p *sendPlan) findChats() {
	if p.chats <= 1 {
		return
	}
	p.chatOf = make([]string, len(p.bodies))
	for i, example := range p.bodies {
		if n, err := notification.Parse(example.Body); err == nil {
			p.chatOf[i] = n.Chat
		}
	}
}

// A chatTurn says to which of several chats the next notification goes.
type chatTurn struct {
	chats int
	next  map[string]int // by the chat of the example
}

// body returns an example in the chat whose turn it is. All its members that name the old chat name the
// new one, because in a chat of two that is also the sender.
func (t *chatTurn) body(example []byte, chat string) []byte {
	if chat == "" {
		return example
	}
	n := t.next[chat]
	t.next[chat] = (n + 1) % t.chats
	return bytes.ReplaceAll(example, []byte(strconv.Quote(chat)), []byte(strconv.Quote(chatID(chat, n))))
}

// chatID returns the ID of the nth of several chats that are of the kind of an example's.
func chatID(example string, n int) string {
	const phone = "@c.us"
	if strings.HasSuffix(example, phone) {
		// A handler may answer what it gets, so these must not be anybody's: no phone number begins with +7 000.
		return fmt.Sprintf("7%010d%s", n+1, phone)
	}
	digits, _, _ := strings.Cut(example, "@")
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return example
	}
	step := int64(10) // the examples of two messengers differ by one
	if number < 0 {
		step = -step
	}
	return strconv.FormatInt(number+step*int64(n), 10) + strings.TrimPrefix(example, digits)
}
