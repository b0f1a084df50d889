package token

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseList(t *testing.T) {
	got, err := ParseList([]byte("# comment\n1101000001 abc#def  Bearer g#h # both\r\n\n\t007\tx\t# y\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(got); text != "map[1101000001:[abc#def Bearer g#h] 7:[x]]" {
		t.Errorf("got %s", text)
	}
}

// TestParseListRefused: an error names the line and never quotes it, since it may have a token in it.
func TestParseListRefused(t *testing.T) {
	const good = "1101000001 s3cret\n1101000002 s3cret\n"
	for name, test := range map[string]struct{ text, want string }{
		"empty":                           {"", "no instance in it"},
		"comments only":                   {"# nothing\n", "no instance in it"},
		"a token in the place of an id":   {good + "s3cret 7\n", "line 3: the id is not 1 to 20 digits"},
		"zeros, as after a loss of power": {strings.Repeat("\x00", 100) + "\n", "line 1: the id is not 1 to 20 digits"},
		"no token":                        {good + "3\n", "line 3: instance 3: no token"},
		"twice":                           {good + "1101000001 s3cret\n", "line 3: instance 1101000001 is there already"},
		"twice, with and without zeros":   {"7 s3cret\n07 s3cret\n" + good, "line 2: instance 07 is there already"},
		"not ASCII":                       {good + "3 x s3cretä\n", "line 3: instance 3: token 2: invalid token"},
		"a scheme and nothing after it":   {good + "3 Bearer\n", "line 3: instance 3: token 1: invalid token"},
	} {
		if _, err := ParseList([]byte(test.text)); err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestListMissing(t *testing.T) {
	list := func(text string) List {
		list, err := ParseList([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := list("7 a\n8 b\n9 c\n")
	if got := before.MissingFrom(list("007 a\n9 other\n10 d\n")); got != 1 || before.Count() != 3 {
		t.Errorf("%d of %d are missing, want 1 of 3", got, before.Count())
	}
}
