package notification

import (
	"fmt"
	"strings"
	"testing"
)

// textMessage is a text message of about 470 bytes.
const textMessage = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},` +
	`"timestamp":1767225600,"idMessage":"3EB0A1B2C3D4E5F60718","senderData":{"chatId":"79007654321@c.us","sender":"79007654321@c.us",` +
	`"chatName":"Test Chat","senderName":"Test Sender","senderContactName":"Test Contact"},"messageData":{"typeMessage":"textMessage",` +
	`"textMessageData":{"textMessage":"Hello, is the shop open today? I would like to come by at about five."}}}`

// pollUpdate is a poll's new votes, of about as many bytes.
func pollUpdate(size int) []byte {
	const vote = `{"optionName":"Yes","optionVoters":["79001234567@c.us","79007654321@c.us"]},`
	votes := strings.Repeat(vote, max(1, size/len(vote)))
	return []byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1767225600,"idMessage":"A1",` +
		`"senderData":{"chatId":"79007654321@c.us"},"messageData":{"typeMessage":"pollUpdateMessage","pollMessageData":{"votes":[` +
		strings.TrimSuffix(votes, ",") + `]}}}`)
}

// longText is a text message of about as many bytes, whose text repeats a piece of one.
func longText(size int, piece string) []byte {
	before, after, _ := strings.Cut(textMessage, "Hello")
	return []byte(before + strings.Repeat(piece, max(1, (size-len(textMessage))/len(piece))) + after)
}

// eachSize runs a benchmark with the text message and with bodies that show what grows: long texts of several
// kinds, and many short ones.
func eachSize(b *testing.B, run func(b *testing.B, body []byte)) {
	one := func(name string, body []byte) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			run(b, body)
		})
	}
	one("text", []byte(textMessage))
	for _, kib := range []int{5, 50, 1024} {
		size := fmt.Sprintf("%dKiB", kib)
		one(size, pollUpdate(kib<<10))
		one("long "+size, longText(kib<<10, "a message of average length, as people write them, "))
		one("Cyrillic "+size, longText(kib<<10, "сообщение средней длины, какие пишут люди, "))
		one("lines "+size, longText(kib<<10, `he said \"yes\", and then\nnothing for a while, `))
		one("escaped "+size, longText(kib<<10, `\u0441\u043e\u043e\u0431\u0449\u0435\u043d\u0438\u0435, `))
	}
}

func BenchmarkParse(b *testing.B) {
	eachSize(b, func(b *testing.B, body []byte) {
		for b.Loop() {
			if _, err := Parse(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValidate is what accepting takes, from the bytes to the verdict.
func BenchmarkValidate(b *testing.B) {
	s := load(b, "")
	eachSize(b, func(b *testing.B, body []byte) {
		n, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if s.Validate(n) != nil {
				b.Fatal("not accepted")
			}
		}
	})
}

// BenchmarkValidateLibrary is what the library takes for the same, from the bytes (which it needs
// as a value) and from the value.
func BenchmarkValidateLibrary(b *testing.B) {
	s := load(b, "")
	eachSize(b, func(b *testing.B, body []byte) {
		n, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if faults, _ := libraryFaults(b, s, n); faults != nil {
				b.Fatal("not accepted")
			}
		}
	})
	b.Run("text, parsed before", func(b *testing.B) {
		n, err := Parse([]byte(textMessage))
		if err != nil {
			b.Fatal(err)
		}
		root := rootOf(b, n)
		b.ReportAllocs()
		for b.Loop() {
			if s.types[n.Type].Validate(root) != nil || s.messages[n.Message].Validate(root["messageData"]) != nil {
				b.Fatal("not accepted")
			}
		}
	})
}

// BenchmarkParseAndValidate is what a good notification takes.
func BenchmarkParseAndValidate(b *testing.B) {
	s := load(b, "")
	eachSize(b, func(b *testing.B, body []byte) {
		for b.Loop() {
			n, err := s.Parse(body)
			if err != nil || s.Validate(n) != nil {
				b.Fatal(err)
			}
		}
	})
}
