package notification

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestAllocations: accepting takes no memory of its own, and a notification two pieces: itself and
// one string for all its fields.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("pools keep nothing for sure under the race detector")
	}
	s := load(t, "")
	body := []byte(textMessage)
	n, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		want float64
		run  func() bool
	}{
		"accept":             {0, func() bool { return s.accepts(n) }},
		"parse":              {2, func() bool { _, err := Parse(body); return err == nil }},
		"parse and validate": {2, func() bool { n, err := s.Parse(body); return err == nil && n.met && s.Validate(n) == nil }},
	} {
		got := testing.AllocsPerRun(200, func() {
			if !tt.run() {
				t.Errorf("%s: not accepted", name)
			}
		})
		if got > tt.want {
			t.Errorf("%s: %v allocations, want %v", name, got, tt.want)
		}
	}
}

// TestRead has names without and with escapes, and one that only begins like a known one.
func TestRead(t *testing.T) {
	s := scans.New().(*scan)
	body := ` {"from": "a", "\u0066rom2" : [1, "b", {"chatId":null}, 1.5], "status":{}, "other":true} `
	if !s.read([]byte(body), envelopeNames) {
		t.Fatal("not read")
	}
	want := []token{
		{shape: isObject, next: 10},
		{shape: isString, name: nameFrom, next: 2},
		{shape: isArray, next: 8},
		{shape: isInteger, next: 4},
		{shape: isString, next: 5},
		{shape: isObject, next: 7},
		{shape: isNull, name: nameChat, next: 7},
		{shape: isFraction, next: 8},
		{shape: isObject, name: nameStatus, next: 9},
		{shape: isBoolean, next: 10},
	}
	var texts []string
	for i, token := range s.tokens {
		texts = append(texts, string(s.raw(&token)))
		if token.start, token.end = 0, 0; i >= len(want) || token != want[i] {
			t.Errorf("token %d: got %+v", i, token)
		}
	}
	if got := strings.Join(texts, " "); got != ` "a"  1 "b"  null 1.5  true` || len(s.tokens) != len(want) {
		t.Errorf("got %d tokens, %q", len(s.tokens), got)
	}
	for _, body := range []string{"", " ", "5", `"a"`, "null", "[]", `[{"typeWebhook":"x"}]`, `{"a":1}{}`, "{} x", "{", "}", "{}}"} {
		s.reset()
		if s.read([]byte(body), envelopeNames) {
			t.Errorf("%s is read", body)
		}
	}
}

// TestRelease: a scan in the pool holds nothing of the body that it has read, and no notification
// holds anything of a scan.
func TestRelease(t *testing.T) {
	s := scans.New().(*scan)
	n := s.notification([]byte(textMessage), envelopeNames)
	used := s.text[:cap(s.text)]
	s.reset()
	if s.body != nil || len(s.tokens)+len(s.open)+len(s.text) != 0 {
		t.Errorf("got %+v", s)
	}
	if strings.Trim(string(used), "\x00") != "" {
		t.Errorf("text is left: %q", used)
	}
	if s.notification([]byte(strings.ReplaceAll(textMessage, "7", "1")), envelopeNames) == nil {
		t.Error("cannot be used again")
	}
	if n.Chat != "79007654321@c.us" || n.Message != "textMessage" || n.Instance != "1101000001" {
		t.Errorf("got %+v", n)
	}
}

// TestScanAfterRefusal: a body that is refused in the middle must not tell on the next.
func TestScanAfterRefusal(t *testing.T) {
	s := scans.New().(*scan)
	for at := range len(textMessage) {
		if s.notification([]byte(textMessage[:at]), envelopeNames) != nil {
			t.Errorf("accepted, cut off at %d", at)
		}
		s.reset()
		if s.notification([]byte(`"typeWebhook"`), envelopeNames) != nil {
			t.Errorf("cut off at %d: then a text is accepted", at)
		}
		s.reset()
		if n := s.notification([]byte(textMessage), envelopeNames); n == nil || n.ID != "3EB0A1B2C3D4E5F60718" {
			t.Fatalf("cut off at %d: then %+v", at, n)
		}
		s.reset()
	}
}

func TestNames(t *testing.T) {
	n := newNames()
	if len(n.list) != ownNames {
		t.Errorf("%d names, want %d", len(n.list), ownNames)
	}
	numbers := make(map[string]int32)
	for i := range 1000 {
		name := fmt.Sprintf("%[1]d name %[1]d", i*i)
		numbers[name] = n.add(name)
	}
	numbers[""] = n.add("")
	for i, name := range []string{"a", "é", "typeWebhook", "from"} {
		numbers[name] = n.add(name)
		if old := envelopeNames.number([]byte(name)); i >= 2 && numbers[name] != old {
			t.Errorf("%s has another number", name)
		}
	}
	seen := make(map[int32]bool)
	for name, number := range numbers {
		if number == otherName || seen[number] || n.number([]byte(name)) != number || n.add(name) != number {
			t.Errorf("%q: number %d", name, number)
		}
		seen[number] = true
		if got := n.number(append(bytes.Clone([]byte(name)), 0)); got != otherName {
			t.Errorf("%q and more: number %d", name, got)
		}
	}
}

// TestTokensAreBounded: of a body with too many values only those are kept that Parse itself reads.
func TestTokensAreBounded(t *testing.T) {
	body := `{"x":[` + strings.Repeat("0,", maxTokens) + `[{"chatId":1}]],"quotaData":{"chatId":1},"senderData":{"sender":"a","chatId":"b","x":{"chatId":1},"status":[{"from":1},{}]},` +
		`"chatName":"c","from":{"from":{"from":1}},"typeWebhook":"d"}`
	s := scans.New().(*scan)
	if !s.read([]byte(body), load(t, "").names) || !s.partial {
		t.Fatal("not read, or wholly")
	}
	var got []int32
	for _, token := range s.tokens[maxTokens:] {
		got = append(got, token.name)
	}
	if want := []int32{nameSenderData, nameChat, nameStatus, nameFrom, nameFrom, nameType}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if at := s.find(s.find(0, nameSenderData), nameChat); at == 0 || string(s.raw(&s.tokens[at])) != `"b"` {
		t.Errorf("chatId is token %d", at)
	}
	if s.reset(); s.partial || cap(s.tokens) > 2*maxTokens {
		t.Errorf("%d tokens are kept", cap(s.tokens))
	}
}
