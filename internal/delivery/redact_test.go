package delivery

import (
	"net/http"
	"strings"
	"testing"
)

func TestWithoutToken(t *testing.T) {
	long := strings.Repeat("x", MaxAnswerText)
	for _, test := range []struct{ authorization, text, want string }{
		{"Bearer canary", "a canary, canary\ncanary", "a REDACTED, REDACTED\nREDACTED"},
		{"canary", "Authorization: canary", "Authorization: REDACTED"},
		{"Basic dXNlcjpjYW5hcnk=", "Basic dXNlcjpjYW5hcnk=, that is user:canary", "Basic REDACTED, that is user:REDACTED"},
		{"Bearer canary", long[:MaxAnswerText-4] + "cana", long[:MaxAnswerText-4] + "REDACTED"},
		{"Bearer canary", "a c", "a c"},
		{"", "canary", "canary"},
	} {
		if got := WithoutToken(test.text, http.Header{"Authorization": {test.authorization}}); got != test.want {
			t.Errorf("%q: %q, want %q", test.authorization, got, test.want)
		}
	}
}
