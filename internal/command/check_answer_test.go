package command_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestCheckAnswer: of an answer of the HTTP API the body is judged, and check says so.
func TestCheckAnswer(t *testing.T) {
	const note = "an answer of the HTTP API, receiptId 1650; judged is its body\n"
	finding := func(typ, instance, outcome, why, errors string) string {
		return fmt.Sprintf(`{"file":"-","type":%q,"message":"","instance":%q,"outcome":%q,"reason":%q,"errors":[%s]}`+"\n", typ, instance, outcome, why, errors)
	}
	for _, test := range []struct {
		name, stdin, text, json string
		answer                  bool
		code                    int
	}{
		{
			"pass", `{"receiptId":1650,"body":` + edgetest.StateChanged + `}`,
			"pass        -  stateInstanceChanged\n", finding("stateInstanceChanged", "1101000001", "pass", "", ""), true, 0,
		},
		{
			"the other order, and spaces", " {\n\"body\": " + edgetest.StateChanged + ",\n\"receiptId\": 1650\n}\n",
			"pass        -  stateInstanceChanged\n", finding("stateInstanceChanged", "1101000001", "pass", "", ""), true, 0,
		},
		{
			"schema", `{"receiptId":1650,"body":{"typeWebhook":"incomingCall","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"a"}}`,
			"quarantine  -  incomingCall  (schema)\n            /from: required: missing; want a string\n",
			finding("incomingCall", "1", "quarantine", "schema", `{"pointer":"/from","keyword":"required","message":"missing; want a string"}`), true, 1,
		},
		{
			"no JSON in it", `{"receiptId":1650,"body":{"typeWebhook":"a "quote""}}`,
			"quarantine  -  (malformed)\n            /: syntax: byte 19: unexpected character\n",
			finding("", "", "quarantine", "malformed", `{"pointer":"","keyword":"syntax","message":"byte 19: unexpected character"}`), true, 1,
		},
		{
			"a notification with such members", `{"receiptId":1,"body":{},` + edgetest.StateChanged[1:],
			"pass        -  stateInstanceChanged\n", finding("stateInstanceChanged", "1101000001", "pass", "", ""), false, 0,
		},
		{
			"only one of them", `{"body":` + edgetest.StateChanged + `}`, "quarantine  -  (malformed)\n            /typeWebhook: syntax: byte 0: no typeWebhook\n",
			finding("", "", "quarantine", "malformed", `{"pointer":"/typeWebhook","keyword":"syntax","message":"byte 0: no typeWebhook"}`), false, 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, said := test.text, ""
			if test.answer {
				text, said = text+"            "+note, "caddy green-api check: -: "+note
			}
			if stdout, stderr, code := runCommand(t, "", test.stdin, "green-api", "check", "-"); stdout != text || stderr != "" || code != test.code {
				t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
			}
			stdout, stderr, code := runCommand(t, "", test.stdin, "green-api", "check", "--format", "json", "-")
			if stdout != test.json || stderr != said || code != test.code {
				t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
			}
			wantContract(t, strings.TrimSpace(stdout))
		})
	}
}
