package delivery

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// redacted replaces a token.
const redacted = "REDACTED"

// WithoutToken removes the request's token from a text. Handlers show whole requests on their error pages,
// and what they answer is kept.
func WithoutToken(text string, header http.Header) string {
	if text == "" {
		return ""
	}
	cut := len(text) >= MaxAnswerText
	for _, value := range header.Values("Authorization") {
		words := strings.Fields(value)
		if len(words) == 0 {
			continue
		}
		token := words[len(words)-1]
		text = without(text, token, cut)
		if decoded, err := base64.StdEncoding.DecodeString(token); err == nil && strings.EqualFold(words[0], "basic") {
			if _, password, found := strings.Cut(string(decoded), ":"); found && password != "" {
				text = without(text, password, cut)
			}
		}
	}
	return text
}

// without removes every occurrence of a secret from a text. If the text was cut, it also removes the
// beginning of the secret from its end.
func without(text, secret string, cut bool) string {
	text = strings.ReplaceAll(text, secret, redacted)
	if !cut {
		return text
	}
	for n := len(secret) - 1; n > 0; n-- {
		if kept, found := strings.CutSuffix(text, secret[:n]); found {
			return kept + redacted
		}
	}
	return text
}
