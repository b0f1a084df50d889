package notification

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// minimal is the least that is a notification; more is spliced in before its last brace.
const minimal = `{"typeWebhook":"x","instanceData":{"idInstance":7}}`

// with returns minimal with one more member x.
func with(value string) string {
	return strings.TrimSuffix(minimal, "}") + `,"x":` + value + "}"
}

func TestParseFields(t *testing.T) {
	tests := map[string]struct {
		body string
		want Notification
	}{
		"minimal": {minimal, Notification{Type: "x", Instance: "7"}},
		"message": {
			`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":310011112222},"timestamp":1767225600,"idMessage":"A1",` +
				`"senderData":{"chatId":"-5"},"chatId":"6","from":"8","messageData":{"typeMessage":"textMessage"}}`,
			Notification{Type: "incomingMessageReceived", Message: "textMessage", Instance: "310011112222", Chat: "-5", ID: "A1", Timestamp: 1767225600},
		},
		"status":             {`{"typeWebhook":"s","instanceData":{"idInstance":1},"chatId":"6","from":"8"}`, Notification{Type: "s", Instance: "1", Chat: "6"}},
		"call":               {`{"typeWebhook":"incomingCall","instanceData":{"idInstance":1},"from":"8"}`, Notification{Type: "incomingCall", Instance: "1", Chat: "8"}},
		"outgoing call":      {`{"typeWebhook":"outgoingCall","instanceData":{"idInstance":1},"from":"8"}`, Notification{Type: "outgoingCall", Instance: "1"}},
		"empty chat":         {`{"typeWebhook":"x","instanceData":{"idInstance":1},"senderData":{"chatId":""},"chatId":"6"}`, Notification{Type: "x", Instance: "1", Chat: "6"}},
		"string instance":    {`{"typeWebhook":"x","instanceData":{"idInstance":"12345678901234567890"}}`, Notification{Type: "x", Instance: "12345678901234567890"}},
		"instance 0":         {`{"typeWebhook":"x","instanceData":{"idInstance":0}}`, Notification{Type: "x", Instance: "0"}},
		"instance 007":       {`{"typeWebhook":"x","instanceData":{"idInstance":"007"}}`, Notification{Type: "x", Instance: "7"}},
		"instance 000":       {`{"typeWebhook":"x","instanceData":{"idInstance":"000"}}`, Notification{Type: "x", Instance: "0"}},
		"long id":            {`{"typeWebhook":"x","instanceData":{"idInstance":1},"chatId":"5","idMessage":"` + strings.Repeat("A", maxShared) + `"}`, Notification{Type: "x", Instance: "1", Chat: "5", ID: strings.Repeat("A", maxShared)}},
		"odd types":          {`{"typeWebhook":"x","instanceData":{"idInstance":1},"senderData":[],"messageData":"m","idMessage":5,"timestamp":"9","chatId":{}}`, Notification{Type: "x", Instance: "1"}},
		"odd types within":   {`{"typeWebhook":"x","instanceData":{"idInstance":1},"senderData":{"chatId":5},"messageData":{"typeMessage":null}}`, Notification{Type: "x", Instance: "1"}},
		"fields outside":     {`{"typeWebhook":"x","instanceData":{"idInstance":1},"typeMessage":"m"}`, Notification{Type: "x", Instance: "1"}},
		"timestamp 1.7e9":    {`{"typeWebhook":"x","instanceData":{"idInstance":1},"timestamp":1.7e9}`, Notification{Type: "x", Instance: "1", Timestamp: 1700000000}},
		"timestamp 1.5":      {`{"typeWebhook":"x","instanceData":{"idInstance":1},"timestamp":1.5}`, Notification{Type: "x", Instance: "1"}},
		"timestamp 1e300":    {`{"typeWebhook":"x","instanceData":{"idInstance":1},"timestamp":1e300}`, Notification{Type: "x", Instance: "1"}},
		"escaped names":      {`{"\u0074ypeWebhook":"x","instanceData":{"id\u0049nstance":1}}`, Notification{Type: "x", Instance: "1"}},
		"names in capitals":  {`{"typeWebhook":"x","instanceData":{"idInstance":1,"WID":2},"IDMESSAGE":"y"}`, Notification{Type: "x", Instance: "1"}},
		"twins elsewhere":    {`{"typeWebhook":"x","IDINSTANCE":2,"\u0000typeWebhook":1,"a\u0000b":1,"instanceData":{"idInstance":1,"TypeWebhook":2},"x":{"TYPEWEBHOOK":3,"y":{"IDINSTANCE":4}}}`, Notification{Type: "x", Instance: "1"}},
		"escaped value":      {`{"typeWebhook":"\u0078","instanceData":{"idInstance":1},"idMessage":"\ud83d\ude00"}`, Notification{Type: "x", Instance: "1", ID: "😀"}},
		"lone surrogate":     {`{"typeWebhook":"x","instanceData":{"idInstance":1},"idMessage":"a\ud800b"}`, Notification{Type: "x", Instance: "1", ID: "a\ufffdb"}},
		"surrogates swapped": {`{"typeWebhook":"x","instanceData":{"idInstance":1},"idMessage":"\ude00\ud83d"}`, Notification{Type: "x", Instance: "1", ID: "\ufffd\ufffd"}},
		"broken UTF-8":       {"{\"typeWebhook\":\"x\",\"instanceData\":{\"idInstance\":1},\"idMessage\":\"a\xffb\"}", Notification{Type: "x", Instance: "1", ID: "a\ufffdb"}},
		"UTF-8 cut off":      {"{\"typeWebhook\":\"x\",\"instanceData\":{\"idInstance\":1},\"idMessage\":\"\xd0\"}", Notification{Type: "x", Instance: "1", ID: "\ufffd"}},
		"escaped NUL":        {`{"typeWebhook":"x","instanceData":{"idInstance":1},"idMessage":"\u0000"}`, Notification{Type: "x", Instance: "1", ID: "\x00"}},
		"white space":        {" \r\n\t" + minimal + "\n\n ", Notification{Type: "x", Instance: "7"}},
		"number of 64 bytes": {with("0." + strings.Repeat("1", 62)), Notification{Type: "x", Instance: "7"}},
		"numbers":            {with("[-0,0.0,0e5,1E+2,1e-300,1e308,-1.5]"), Notification{Type: "x", Instance: "7"}},
		"depth 100":          {with(strings.Repeat("[", 99) + strings.Repeat("]", 99)), Notification{Type: "x", Instance: "7"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n, err := Parse([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			n.body = nil
			if got, want := fmt.Sprintf("%+v", *n), fmt.Sprintf("%+v", tt.want); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	before := int64(len(minimal) - 1 + len(`,"x":`)) // offset of the value in with(value)
	tests := map[string]struct {
		body    string
		offset  int64
		pointer string
		cause   string
	}{
		"empty":                    {"", 0, "", causeEmpty},
		"white space only":         {" \n\t", 3, "", causeEmpty},
		"byte-order mark":          {"\xef\xbb\xbf" + minimal, 0, "", causeByteOrderMark},
		"UTF-16":                   {"\xff\xfe{\x00}\x00", 0, "", causeByteOrderMark},
		"array":                    {"[" + minimal + "]", 0, "", causeNotObject},
		"array of its parts":       {`[{"a":{"typeWebhook":1}},"x",{"b":{"instanceData":1}},{"idInstance":7}]`, 0, "", causeNotObject},
		"string":                   {` "x"`, 1, "", causeNotObject},
		"null":                     {"null", 0, "", causeNotObject},
		"text":                     {"hello", 0, "", causeNotObject},
		"vendor's docs":            {`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":000001}}`, 70, "/instanceData/idInstance", causeLeadingZero},
		"leading zero, negative":   {with("-01"), before, "", causeLeadingZero},
		"leading zero in an array": {with("[1, 00]"), before + 4, "", causeLeadingZero},
		"twice":                    {`{"typeWebhook":"x","typeWebhook":"y"}`, 19, "/typeWebhook", causeTwice},
		"twice by escape":          {`{"typeWebhook":"x","\u0074ypeWebhook":"y"}`, 19, "/typeWebhook", causeTwice},
		"twice, first by escape":   {`{"type\u0057ebhook":"x","typeWebhook":"x"}`, 24, "/typeWebhook", causeTwice},
		"twice, deep":              {`{"messageData":{"quotedMessage":{"stanzaId":1,"stanzaId":1}}}`, 46, "/messageData/quotedMessage/stanzaId", causeTwice},
		"twice, unknown name":      {`{"messageData":{"a":1,"a":1}}`, 22, "/messageData", causeTwice},
		"twice, empty name":        {`{"":1,"":1}`, 6, "", causeTwice},
		"depth 101":                {with(strings.Repeat("[", 100)), before + 99, "", causeDepth},
		"number of 65 bytes":       {with("0." + strings.Repeat("1", 63)), before, "", causeLongNumber},
		"1e999":                    {`{"timestamp":1e999}`, 13, "/timestamp", causeNumberRange},
		"-1e309":                   {with("-1e309"), before, "", causeNumberRange},
		"1e-400":                   {with("1e-400"), before, "", causeNumberRange},
		"1e-999999999":             {with("1e-999999999"), before, "", causeNumberRange},
		"0e999999999":              {with("0e999999999"), before, "", causeNumberRange},
		"name of broken UTF-8":     {"{\"a\xff\":1}", 1, "", causeBadName},
		"name of surrogates":       {`{"messageData":{"\ud800":1}}`, 16, "/messageData", causeBadName},
		"name not a string":        {`{1:2}`, 1, "", causeNameNotString},
		"data after":               {minimal + " x", int64(len(minimal)) + 1, "", causeDataAfter},
		"object after":             {minimal + "{}", int64(len(minimal)), "", causeDataAfter},
		"brace after":              {minimal + "}", int64(len(minimal)), "", causeDataAfter},
		"NUL after":                {minimal + "\x00", int64(len(minimal)), "", causeDataAfter},
		"cut off in a string":      {`{"typeWebhook":"x`, 17, "/typeWebhook", causeEnd},
		"cut off in a literal":     {`{"typeWebhook":tru`, 18, "/typeWebhook", causeEnd},
		"cut off in an escape":     {`{"idMessage":"b\u00`, 19, "/idMessage", causeEnd},
		"cut off after a name":     {`{"typeWebhook"`, 14, "/typeWebhook", causeEnd},
		"cut off in an object":     {`{"instanceData":{`, 17, "/instanceData", causeEnd},
		"control character":        {"{\"idMessage\":\"a\nb\"}", 15, "/idMessage", causeControl},
		"NUL in a string":          {"{\"idMessage\":\"\x00\"}", 14, "/idMessage", causeControl},
		"control in a name":        {"{\"a\x1fb\":1}", 3, "", causeControl},
		"bad escape":               {`{"idMessage":"\x41"}`, 14, "/idMessage", causeEscape},
		"bad \\u":                  {`{"idMessage":"\u00zz"}`, 14, "/idMessage", causeEscape},
		"NUL outside":              {"{\"idMessage\":1\x00}", 14, "", causeCharacter},
		"text not escaped":         {`{"idMessage":"he said "hello", yes"}`, 23, "", causeCharacter},
		"trailing comma":           {`{"idMessage":"a",}`, 16, "", causeOutOfPlace},
		"no colon":                 {`{"idMessage" "a"}`, 13, "/idMessage", causeCharacter},
		"no value":                 {`{"idMessage":}`, 13, "/idMessage", causeOutOfPlace},
		"bracket for brace":        {`{"idMessage":"a"]`, 16, "", causeOutOfPlace},
		"comment":                  {`{/* */}`, 1, "", causeCharacter},
		"NaN":                      {`{"timestamp":NaN}`, 13, "/timestamp", causeCharacter},
		"True":                     {`{"timestamp":True}`, 13, "/timestamp", causeCharacter},
		"plus":                     {`{"timestamp":+1}`, 13, "/timestamp", causeCharacter},
		"hexadecimal":              {`{"timestamp":0x10}`, 14, "", causeCharacter},
		"no type":                  {` {"instanceData":{"idInstance":7}}`, 1, "/typeWebhook", causeNoType},
		"twin of the type":         {`{"TYPEWEBHOOK":"y","typeWebhook":"x","instanceData":{"idInstance":7}}`, 33, "/typeWebhook", causeTwin},
		"twin of the instance":     {`{"typeWebhook":"x","instanceData":{"idInstance":7,"IDInstance":8}}`, 48, "/instanceData/idInstance", causeTwin},
		"twin of instanceData":     {`{"typeWebhook":"x","instanceData":{"idInstance":7},"instancedata":{}}`, 34, "/instanceData", causeTwin},
		"twin of the message type": {`{"typeWebhook":"x","instanceData":{"idInstance":7},"messageData":{"typeMessage":"y","TypeMessage":"z"}}`, 80, "/messageData/typeMessage", causeTwin},
		"twin with a NUL":          {`{"typeWebhook":"x","instanceData":{"idInstance":7,"idInstance\u0000":8}}`, 48, "/instanceData/idInstance", causeTwin},
		"twin with more":           {`{"typeWebhook\u0000y":"y","typeWebhook":"x","instanceData":{"idInstance":7}}`, 40, "/typeWebhook", causeTwin},
		"twin without the message": {`{"typeWebhook":"x","instanceData":{"idInstance":7},"MESSAGEDATA":{}}`, 0, "/messageData", causeTwin},
		"type in capitals":         {`{"TypeWebhook":"x","instanceData":{"idInstance":7}}`, 0, "/typeWebhook", causeNoType},
		"empty type":               {`{"typeWebhook":""}`, 15, "/typeWebhook", causeBadType},
		"type null":                {`{"a":[{}], "typeWebhook" : null}`, 27, "/typeWebhook", causeBadType},
		"no instanceData":          {`{"typeWebhook":"x"}`, 0, "/instanceData", causeNoInstanceData},
		"idInstance outside":       {`{"typeWebhook":"x","idInstance":7}`, 0, "/instanceData", causeNoInstanceData},
		"instanceData an array":    {`{"typeWebhook":"x","instanceData":[]}`, 34, "/instanceData", causeBadInstanceData},
		"no idInstance":            {`{"typeWebhook":"x","instanceData": {"wid":""}}`, 35, "/instanceData/idInstance", causeNoInstance},
		"idInstance null":          {`{"typeWebhook":"x","instanceData":{"idInstance": null}}`, 49, "/instanceData/idInstance", causeBadInstance},
		"idInstance negative":      {`{"typeWebhook":"x","instanceData":{"idInstance":-7}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance 7.0":           {`{"typeWebhook":"x","instanceData":{"idInstance":7.0}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance 7e3":           {`{"typeWebhook":"x","instanceData":{"idInstance":7e3}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance of 21 digits":  {`{"typeWebhook":"x","instanceData":{"idInstance":123456789012345678901}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance empty":         {`{"typeWebhook":"x","instanceData":{"idInstance":""}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance not digits":    {`{"typeWebhook":"x","instanceData":{"idInstance":"7 "}}`, 48, "/instanceData/idInstance", causeBadInstance},
		"idInstance other digits":  {`{"typeWebhook":"x","instanceData":{"idInstance":"٧"}}`, 48, "/instanceData/idInstance", causeBadInstance},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.body))
			var got *SyntaxError
			if !errors.As(err, &got) {
				t.Fatalf("got error %v", err)
			}
			if want := (SyntaxError{tt.offset, tt.pointer, tt.cause}); *got != want {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

func TestSyntaxErrorText(t *testing.T) {
	_, err := Parse([]byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":000001}}`))
	if got, want := err.Error(), "byte 70: number with a leading zero, at /instanceData/idInstance"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = Parse([]byte("{}"))
	if got, want := err.Error(), "byte 0: no typeWebhook, at /typeWebhook"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = Parse([]byte("[]"))
	if got, want := err.Error(), "byte 0: not a JSON object"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestParseBounds would take seconds to hours with a parser that is not linear. The bound is far
// above what is needed, for a loaded machine and the race detector.
func TestParseBounds(t *testing.T) {
	const mib = 1 << 20
	names := new(strings.Builder)
	for i := range 60_000 {
		fmt.Fprintf(names, `"%d":0,`, i)
	}
	tests := map[string]struct {
		body string
		ok   bool
	}{
		"spaces":                  {strings.Repeat(" ", mib), false},
		"spaces before":           {strings.Repeat(" ", mib) + minimal, true},
		"spaces after":            {minimal + strings.Repeat(" ", mib), true},
		"arrays":                  {strings.Repeat("[", 200_000), false},
		"arrays in an object":     {with(strings.Repeat("[", 200_000)), false},
		"objects":                 {strings.Repeat(`{"a":`, 200_000), false},
		"long string":             {with(`"` + strings.Repeat("x", mib) + `"`), true},
		"long string of escapes":  {with(`"` + strings.Repeat(`\u00e9`, mib/6) + `"`), true},
		"long string of rubbish":  {with(`"` + strings.Repeat("\xff", mib) + `"`), true},
		"long name":               {`{"` + strings.Repeat("x", mib) + `":1`, false},
		"long name, broken":       {`{"` + strings.Repeat("\xff", mib) + `":1`, false},
		"number of many digits":   {with(strings.Repeat("1", 100_000)), false},
		"fraction of many digits": {with("0." + strings.Repeat("1", 100_000)), false},
		"exponent of many digits": {with("1e" + strings.Repeat("1", 100_000)), false},
		"exponent of zeros":       {with("1e" + strings.Repeat("0", 50) + "1"), true},
		"many names":              {strings.TrimSuffix(minimal, "}") + "," + strings.TrimSuffix(names.String(), ",") + "}", true},
		"many elements":           {with("[" + strings.Repeat("0,", mib/2) + "0]"), true},
		"many objects":            {with("[" + strings.Repeat("{},", mib/3) + "{}]"), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := Parse([]byte(tt.body)); (err == nil) != tt.ok {
				t.Errorf("got error %v", err)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestEnvelope: of a body that is refused only what is decisive becomes a value, and one of its twins.
func TestEnvelope(t *testing.T) {
	const body = `{"typeWebhook":["a","b"],"TYPEWEBHOOK":1,"typewebhook":2,"x":{"typeWebhook":1},"instanceData":{"idInstance":[1],"IDINSTANCE":1,"z":{}},"messageData":{"typeMessage":{"typeMessage":5}}}`
	got, err := parseEnvelope([]byte(body), 0)
	want := map[string]any{
		"typeWebhook": []any(nil), "TYPEWEBHOOK": json.Number("1"),
		"instanceData": map[string]any{"idInstance": []any(nil)},
		"messageData":  map[string]any{"typeMessage": map[string]any{}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v", got, err)
	}
}
