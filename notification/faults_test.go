package notification

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// canary has a text and a number that no error may repeat. The type is named like the schema that
// FuzzSchema compiles.
const canary = `{"typeWebhook":"canary","instanceData":{"idInstance":424242,"wid":"CANARY@c.us"},"timestamp":4242421,"idMessage":"CANARY1",` +
	`"list":["CANARY2",424242,{"deep":"CANARY"}],"text":"CANARY3","number":424242.5,"true":true,"null":null}`

func marshal(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFaults(t *testing.T) {
	message := func(messageData string) string {
		return `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"","senderData":{"chatId":""},"messageData":` + messageData + "}"
	}
	tests := map[string]struct {
		body string
		want []Fault
	}{
		"envelope missing": {
			`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1}}`,
			[]Fault{
				{"/idMessage", "required", "missing; want a string"},
				{"/messageData", "required", "missing; want an object"},
				{"/senderData", "required", "missing; want an object"},
				{"/timestamp", "required", "missing; want an integer"},
			},
		},
		"chatId missing": {
			`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"","senderData":{},"messageData":{"typeMessage":"new"}}`,
			[]Fault{{"/senderData/chatId", "required", "missing; want a string"}},
		},
		"wrong types": {
			`{"typeWebhook":"incomingCall","instanceData":{"idInstance":1,"wid":5},"timestamp":"1","idMessage":null,"from":[]}`,
			[]Fault{
				{"/from", "type", "want string, got array"},
				{"/idMessage", "type", "want string, got null"},
				{"/instanceData/wid", "type", "want string or null, got number"},
				{"/timestamp", "type", "want integer, got string"},
			},
		},
		"block missing": {message(`{"typeMessage":"imageMessage"}`), []Fault{{"/messageData/fileMessageData", "required", "missing; want an object"}}},
		"block null":    {message(`{"typeMessage":"imageMessage","fileMessageData":null}`), []Fault{{"/messageData/fileMessageData", "type", "want object, got null"}}},
		"block a list":  {message(`{"typeMessage":"imageMessage","fileMessageData":[]}`), []Fault{{"/messageData/fileMessageData", "type", "want object, got array"}}},
		"one of two":    {message(`{"typeMessage":"stickerMessage"}`), []Fault{{"/messageData", "anyOf", "missing; one of fileMessageData, stickerMessageData is needed"}}},
		"one of two, null": {
			message(`{"typeMessage":"stickerMessage","stickerMessageData":null}`),
			[]Fault{{"/messageData/stickerMessageData", "type", "want object, got null"}},
		},
		"one of two, a list": {
			message(`{"typeMessage":"stickerMessage","fileMessageData":[]}`),
			[]Fault{{"/messageData/fileMessageData", "type", "want object, got array"}},
		},
		"text missing":       {message(`{"typeMessage":"textMessage","textMessageData":{}}`), []Fault{{"/messageData/textMessageData/textMessage", "required", "missing; want a string"}}},
		"messageData no map": {message(`5`), []Fault{{"/messageData", "type", "want object, got number"}}},
		"element": {
			message(`{"typeMessage":"pollMessage","pollMessageData":{"options":[{},{"optionName":2}]}}`),
			[]Fault{{"/messageData/pollMessageData/options/1/optionName", "type", "want string or null, got number"}},
		},
		"both schemas": {
			strings.Replace(message(`{"typeMessage":"reactionMessage"}`), `"idMessage":""`, `"idMessage":5`, 1),
			[]Fault{{"/idMessage", "type", "want string, got number"}, {"/messageData/extendedTextMessageData", "required", "missing; want an object"}},
		},
	}
	s := load(t, "")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 5 { // the validator walks maps, in any order
				if got := validate(t, s, tt.body); !reflect.DeepEqual(got, tt.want) {
					t.Fatalf("got  %v\nwant %v", got, tt.want)
				}
			}
		})
	}
}

// TestFaultsOfOwnSchemas has keywords that only an operator's own schemas use.
func TestFaultsOfOwnSchemas(t *testing.T) {
	t.Parallel()
	tests := map[string]Fault{
		`{"properties":{"text":{"enum":["a"]}}}`:                                                             {"/text", "enum", "not one of the values allowed"},
		`{"properties":{"text":{"const":"a"}}}`:                                                              {"/text", "const", "not the value wanted"},
		`{"properties":{"text":{"pattern":"^a"}}}`:                                                           {"/text", "pattern", "does not match the pattern"},
		`{"properties":{"text":{"minLength":99}}}`:                                                           {"/text", "minLength", "too short"},
		`{"properties":{"text":false}}`:                                                                      {"/text", "false", "must not be there"},
		`{"properties":{"number":{"maximum":1}}}`:                                                            {"/number", "maximum", "too large"},
		`{"properties":{"number":{"type":"integer"}}}`:                                                       {"/number", "type", "want integer, got number"},
		`{"properties":{"list":{"contains":{"const":1}}}}`:                                                   {"/list", "contains", "an element wanted is not there"},
		`{"properties":{"list":{"uniqueItems":true,"maxItems":1}}}`:                                          {"/list", "maxItems", "too many elements"},
		`{"properties":{"instanceData":{"additionalProperties":false}}}`:                                     {"/instanceData", "additionalProperties", "has a member that is not allowed"},
		`{"properties":{"instanceData":{"propertyNames":{"maxLength":3}}}}`:                                  {"/instanceData", "propertyNames", "has a member whose name is not allowed"},
		`{"not":{"required":["text"]}}`:                                                                      {"", "not", "has a form that is not allowed"},
		`{"oneOf":[true,true]}`:                                                                              {"", "oneOf", "fits more than one form"},
		`{"oneOf":[{"required":["a","b"]},{"required":["c"]}]}`:                                              {"", "oneOf", "missing; one of a with b, c is needed"},
		`{"allOf":[{"required":["a/b~c"]}]}`:                                                                 {"/a~1b~0c", "required", "missing"},
		`{"anyOf":[{"required":["a"]},{"properties":{"list":{"items":{"type":"string"}}}}]}`:                 {"/list/1", "type", "want string, got number"},
		`{"dependentRequired":{"text":["a"]}}`:                                                               {"", "dependentRequired", "lacks a member that another asks for"},
		`{"if":{"required":["text"]},"then":{"required":["a"],"properties":{"a":{"type":"array"}}}}`:         {"/a", "required", "missing; want an array"},
		`{"properties":{"idMessage":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":["null","number","array"]}}}`: {"/idMessage", "type", "want number, array or null, got string"},
		`{"required":["a"],"properties":{"a":{"type":["string","integer"]}}}`:                                {"/a", "required", "missing; want an integer or a string"},
		`{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"text":{"format":"email"}}}`:     {"/text", "format", "not in the format wanted"},
	}
	for schema, want := range tests {
		s := load(t, folder(t, map[string]string{"canary.json": schema}))
		faults := validate(t, s, canary)
		if !slices.Contains(faults, want) {
			t.Errorf("%s\ngot  %v\nwant %v", schema, faults, want)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	body := strings.Replace(canary, `"canary"`, `"incomingMessageReceived"`, 1)
	body = strings.TrimSuffix(body, "}") + `,"messageData":{"typeMessage":"contactsArrayMessage","contacts":[` + strings.Repeat("0,", 50_000) + "0]}}"
	n, err := Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if faults, more := load(t, "").Faults(n); len(faults) != maxFaults || !more {
		t.Errorf("got %d faults, more: %v", len(faults), more)
	}
}

// TestNoErrorQuotesTheBody breaks a body whose every value is a canary, at every byte and in
// ways that turn texts into names, and looks for the canary in all that is said of it.
func TestNoErrorQuotesTheBody(t *testing.T) {
	t.Parallel()
	const body = `{"typeWebhook":"CANARYtype","instanceData":{"idInstance":424242,"wid":"CANARY"},"timestamp":"CANARY","idMessage":["CANARY"],` +
		`"senderData":{"chatId":424242,"sender":{"a":"CANARY"}},"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":424242,"isForwarded":"CANARY"},` +
		`"quotedMessage":"CANARY and CANARY, CANARY: 424242"}}`
	s := load(t, "")
	said := 0
	check := func(body string) {
		t.Helper()
		n, err := Parse([]byte(body))
		texts := fmt.Sprint(err)
		if err == nil {
			n.Type = "incomingMessageReceived"
			texts = fmt.Sprint(s.Validate(n))
		}
		said++
		if strings.Contains(texts, "CANARY") || strings.Contains(texts, "424242") {
			t.Errorf("%s\nin %s", texts, body)
		}
	}
	for i := range body {
		check(body[:i])
		for _, with := range []string{`"`, `","`, `":"`, "{", "}", "[", ",", ":", `\`, "\x00", "0", " ", "\xff"} {
			check(body[:i] + with + body[i+1:])
			check(body[:i] + with + body[i:])
		}
	}
	if said < 5_000 {
		t.Errorf("only %d bodies tried", said)
	}
}
