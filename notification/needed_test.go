package notification

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// neededByType and neededByMessage say by hand what TestMutations reads from the schemas: what a
// body of the kind cannot lack. "a|b" is one of two. A change here changes what is quarantined.
var (
	messageNeeds = "/timestamp /idMessage /senderData /senderData/chatId /messageData /messageData/typeMessage"
	neededByType = map[string]string{
		"incomingMessageReceived":    messageNeeds,
		"outgoingMessageReceived":    messageNeeds,
		"outgoingAPIMessageReceived": messageNeeds,
		"outgoingMessageStatus":      "/status /timestamp",
		"incomingMessageStatus":      "/status /timestamp",
		"stateInstanceChanged":       "/stateInstance /timestamp",
		"statusInstanceChanged":      "/statusInstance",
		"incomingCall":               "/from /idMessage /timestamp",
		"outgoingCall":               "",
		"incomingBlock":              "",
		"deviceInfo":                 "",
		"quotaExceeded":              "/quotaData",
	}
	neededByMessage = map[string]string{
		"textMessage":                   "textMessageData|TextMessageData",
		"extendedTextMessage":           "extendedTextMessageData",
		"quotedMessage":                 "extendedTextMessageData",
		"imageMessage":                  "fileMessageData",
		"videoMessage":                  "fileMessageData",
		"documentMessage":               "fileMessageData",
		"audioMessage":                  "fileMessageData",
		"stickerMessage":                "fileMessageData|stickerMessageData",
		"locationMessage":               "locationMessageData",
		"contactMessage":                "contactMessageData",
		"contactsArrayMessage":          "messageData|contacts",
		"ContactsArrayMessage":          "messageData|contacts",
		"reactionMessage":               "extendedTextMessageData",
		"groupInviteMessage":            "groupInviteMessageData",
		"pollMessage":                   "pollMessageData|pollCreationMessage",
		"pollUpdateMessage":             "pollMessageData",
		"buttonsMessage":                "buttonsMessage",
		"listMessage":                   "listMessage",
		"templateMessage":               "templateMessage|messageData",
		"buttonsResponseMessage":        "buttonsResponseMessage",
		"listResponseMessage":           "listResponseMessage",
		"templateButtonsReplyMessage":   "templateButtonReplyMessage",
		"templateButtonReplyMessage":    "templateButtonReplyMessage",
		"interactiveButtons":            "interactiveButtons|interactiveButtonsReply",
		"interactiveButtonsReply":       "interactiveButtons|interactiveButtonsReply",
		"interactiveButtonsResponse":    "interactiveButtonsResponse",
		"editedMessage":                 "editedMessageData",
		"deletedMessage":                "deletedMessageData",
		"orderMessage":                  "orderMessage",
		"productMessage":                "productMessage",
		"statusExtendedTextMessageData": "",
	}
)

func TestNeeded(t *testing.T) {
	s := load(t, "")
	if got, want := s.Types(), slices.Sorted(maps.Keys(neededByType)); !slices.Equal(got, want) {
		t.Errorf("types are %v, want %v", got, want)
	}
	if got, want := s.Messages(), slices.Sorted(maps.Keys(neededByMessage)); !slices.Equal(got, want) {
		t.Errorf("messages are %v, want %v", got, want)
	}
	for _, e := range Examples() {
		n, err := Parse(e.Body)
		if err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		var want []string
		want = append(want, "/typeWebhook", "/instanceData", "/instanceData/idInstance")
		want = append(want, strings.Fields(neededByType[e.Type])...)
		for need := range strings.FieldsSeq(neededByMessage[e.Message]) {
			for name := range strings.SplitSeq(need, "|") {
				if object(rootOf(t, n)["messageData"])[name] != nil {
					want = append(want, "/messageData/"+name)
				}
			}
		}
		if e.Message == "textMessage" {
			block := want[len(want)-1]
			want = append(want, block+"/textMessage")
		}
		got := surveyOf(s, n, rootOf(t, n)).needed()
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s needs\n%v, want\n%v", e.Name, got, want)
		}
	}
}

// needed are the pointers of what the surveyed body has and cannot lack.
func (s *survey) needed() []string {
	var pointers []string
	for pointer, p := range s.places {
		if p.required {
			pointers = append(pointers, pointer)
		}
	}
	for _, c := range s.choices {
		for _, name := range c.names {
			if pointer := pointerOf(append(slices.Clone(c.path), name)); s.places[pointer].there {
				pointers = append(pointers, pointer)
			}
		}
	}
	slices.Sort(pointers)
	return slices.Compact(pointers)
}
