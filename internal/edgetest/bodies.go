package edgetest

import (
	"fmt"
	"strings"
)

// Broken is a notification that fails its schema, with a mark of its own.
func Broken(mark string) string {
	return strings.Replace(strings.Replace(TextMessage, "3EB0C767D097B7C7C030", mark, 1), `"a canary sings"`, "5", 1)
}

// A text that every test may use: a whole, valid notification.
const TextMessage = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"idMessage":"3EB0C767D097B7C7C030",` +
	`"senderData":{"chatId":"79001234568@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},` +
	`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a canary sings"}}}`

const StateChanged = `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"stateInstance":"authorized"}`

const Token = "s3cret-canary-token"

// Numbered is a valid notification of its own.
func Numbered(id string) string {
	return strings.Replace(TextMessage, "3EB0C767D097B7C7C030", id, 1)
}

// notification is one of an instance, with an idMessage of its own.
func NotificationOf(instance string, n int) []byte {
	return []byte(strings.NewReplacer("1101000001", instance, "3EB0C767D097B7C7C030", fmt.Sprintf("RECEIVED%06d", n)).Replace(TextMessage))
}
