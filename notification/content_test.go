package notification

import (
	"strings"
	"testing"
)

// TestContent: which bodies are duplicates of which.
func TestContent(t *testing.T) {
	const base = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us"},` +
		`"timestamp":1700000000,"idMessage":"A1","messageData":{"typeMessage":"imageMessage","fileMessageData":{"caption":"x","timestamp":5,"list":[1,2,[3]]}}}`
	replace := func(old, with string) string {
		body := strings.Replace(base, old, with, 1)
		if body == base {
			t.Fatalf("nothing to replace: %s", old)
		}
		return body
	}
	for _, test := range []struct {
		name, one, two string
		same           bool
	}{
		{"the same", base, base, true},
		{"timestamp", base, replace("1700000000", "1700000060"), true},
		{"no timestamp", base, replace(`"timestamp":1700000000,`, ""), true},
		{"white space", base, replace(`"timestamp":1700000000,`, "\n\t\"timestamp\" : 1 , "), true},
		{"order of members", base, replace(`"typeMessage":"imageMessage","fileMessageData":{"caption":"x","timestamp":5,"list":[1,2,[3]]}`,
			`"fileMessageData":{"list":[1,2,[3]],"timestamp":5,"caption":"x"},"typeMessage":"imageMessage"`), true},
		{"an inner timestamp", base, replace(`"timestamp":5`, `"timestamp":6`), false},
		{"idMessage", base, replace("A1", "A2"), false},
		{"instance", base, replace("1101000001", "1101000002"), false},
		{"type", base, replace("incomingMessageReceived", "outgoingMessageReceived"), false},
		{"one more member", base, replace(`"caption":"x"`, `"caption":"x","downloadUrl":"https://example.com"`), false},
		{"another value", base, replace(`"caption":"x"`, `"caption":"y"`), false},
		{"a value of another kind", base, replace(`"caption":"x"`, `"caption":["x"]`), false},
		{"values change places", base, replace(`"typeMessage":"imageMessage","fileMessageData":{"caption":"x"`, `"typeMessage":"x","fileMessageData":{"caption":"imageMessage"`), false},
		{"order of elements", base, replace("[1,2,[3]]", "[2,1,[3]]"), false},
		{"depth of elements", base, replace("[1,2,[3]]", "[1,[2,3]]"), false},
		{"empty array and object", replace("[1,2,[3]]", "[]"), replace("[1,2,[3]]", "{}"), false},
		{"a member moves out", replace(`"list":[1,2,[3]]}`, `"list":{"a":1}}`), replace(`"list":[1,2,[3]]}`, `"list":{},"a":1}`), false},
		{"without idMessage, timestamp", replace(`"idMessage":"A1",`, ""), strings.Replace(replace(`"idMessage":"A1",`, ""), "1700000000", "1700000060", 1), false},
		{"without idMessage, order", `{"typeWebhook":"x","instanceData":{"idInstance":1},"timestamp":1}`, `{"timestamp":1,"instanceData":{"idInstance":1},"typeWebhook":"x"}`, true},
	} {
		one, ok1 := content(t, test.one)
		two, ok2 := content(t, test.two)
		if !ok1 || !ok2 || (one == two) != test.same {
			t.Errorf("%s: duplicate %t, want %t", test.name, one == two, test.same)
		}
	}
	if _, ok := content(t, replace("incomingMessageReceived", "incomingMessageStatus")); ok {
		t.Error("incomingMessageStatus: it comes once for each reader")
	}
}

func content(t *testing.T, body string) (key [16]byte, ok bool) {
	t.Helper()
	n, err := Parse([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return n.Content()
}

// TestContentExamples: no two different examples are duplicates.
func TestContentExamples(t *testing.T) {
	names := make(map[[16]byte]string)
	for _, example := range Examples() {
		key, ok := content(t, string(example.Body))
		if other, known := names[key]; ok && known {
			t.Errorf("%s is a duplicate of %s", example.Name, other)
		}
		names[key] = example.Name
	}
}

// TestContentCost: the longest body costs no memory.
func TestContentCost(t *testing.T) {
	body := []byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"idMessage":"A1","x":[` + strings.Repeat("1,", 1<<19) + `1]}`)
	n, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(3, func() { n.Content() }); allocs > 1 {
		t.Errorf("allocates %.0f times", allocs)
	}
}

func BenchmarkContent(b *testing.B) {
	for _, x := range []string{"1,", "{},", `"a",`} {
		n, err := Parse([]byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"idMessage":"A1","x":[` + strings.Repeat(x, 1<<20/len(x)) + `1]}`))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(x, func(b *testing.B) {
			for b.Loop() {
				n.Content()
			}
		})
	}
}
