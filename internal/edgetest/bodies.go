package edgetest

import (
	"fmt"
	"strings"
)

// Broken returns a notification that violates its schema, with this idMessage.
func Broken(mark string) string {
	return strings.Replace(strings.Replace(TextMessage, "3EB0C767D097B7C7C030", mark, 1), `"a canary sings"`, "5", 1)
}

// TextMessage is a complete, valid notification that any test may use.
const TextMessage = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"idMessage":"3EB0C767D097B7C7C030",` +
	`"senderData":{"chatId":"79001234568@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},` +
	`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a canary sings"}}}`

const StateChanged = `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"stateInstance":"authorized"}`

const Token = "s3cret-canary-token"

// Numbered returns a valid notification with this idMessage.
func Numbered(id string) string {
	return strings.Replace(TextMessage, "3EB0C767D097B7C7C030", id, 1)
}

// NotificationOf returns the nth notification of an instance, with an idMessage of its own.
func NotificationOf(instance string, n int) []byte {
	return []byte(strings.NewReplacer("1101000001", instance, "3EB0C767D097B7C7C030", fmt.Sprintf("RECEIVED%06d", n)).Replace(TextMessage))
}
