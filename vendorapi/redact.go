package vendorapi

import (
	"net/url"
	"strings"
)

// redacted replaces a secret.
const redacted = "REDACTED"

// shortestSecret is the minimum length of a part of a URL to look for in other texts. A shorter one is not
// a secret, and would be found everywhere.
const shortestSecret = 4

// RedactURL returns a URL without the parts that may be secret: user and password, query values and
// fragment. A text that is not a URL with a host may itself be a secret, so nothing of it is left.
func RedactURL(text string) string {
	if text == "" {
		return ""
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		return redacted
	}
	var shown strings.Builder
	if parsed.Scheme != "" {
		shown.WriteString(parsed.Scheme + ":")
	}
	shown.WriteString("//")
	if parsed.User != nil {
		shown.WriteString(redacted + "@")
	}
	shown.WriteString(parsed.Host + parsed.EscapedPath())
	if parsed.RawQuery != "" {
		shown.WriteString("?" + eachParameter(parsed.RawQuery, func(string) string { return redacted }))
	}
	if parsed.Fragment != "" {
		shown.WriteString("#" + redacted)
	}
	return shown.String()
}

// eachParameter replaces each value of a query. A parameter without a name is all value.
func eachParameter(query string, put func(value string) string) string {
	var out strings.Builder
	for query != "" {
		parameter, separator := query, ""
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			parameter, separator = query[:end], query[end:end+1]
		}
		query = query[len(parameter)+len(separator):]
		name, value, named := strings.Cut(parameter, "=")
		switch {
		case named && value != "":
			out.WriteString(name + "=" + put(value))
		case !named && parameter != "":
			out.WriteString(put(parameter))
		default:
			out.WriteString(parameter)
		}
		out.WriteString(separator)
	}
	return out.String()
}

// RedactURLIn removes a URL, and its parts that may be secret, from a text: the API may quote what it
// refuses.
func RedactURLIn(text, address string) string {
	if address == "" {
		return text
	}
	text = strings.ReplaceAll(text, address, RedactURL(address))
	parsed, err := url.Parse(address)
	if err != nil {
		return text
	}
	secrets := []string{parsed.Fragment, parsed.EscapedFragment()}
	if parsed.User != nil {
		password, _ := parsed.User.Password()
		secrets = append(secrets, parsed.User.String(), password, parsed.User.Username())
	}
	eachParameter(parsed.RawQuery, func(value string) string {
		decoded, _ := url.QueryUnescape(value)
		secrets = append(secrets, value, decoded)
		return ""
	})
	for _, secret := range secrets {
		if len(secret) >= shortestSecret {
			text = strings.ReplaceAll(text, secret, redacted)
		}
	}
	return text
}
