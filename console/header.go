package console

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// policy is the Content-Security-Policy of all answers but the login page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// setHeader sets what every answer has.
func setHeader(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, why string) {
	answerJSON(w, status, map[string]string{"error": why})
}

func answerJSON(w http.ResponseWriter, status int, object any) {
	text, err := json.Marshal(object)
	if err != nil { // none of ours
		status, text = http.StatusInternalServerError, []byte(`{"error":"no answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

// isFor reports whether a header Host is one of ours. Upper case is as good as lower case; a dot at the end is not.
func (c *Console) isFor(host string) bool {
	host = lower(host)
	for _, ours := range c.hosts {
		got := host
		if portOf(ours) == "" {
			got = strings.TrimSuffix(got, portOf(got))
		}
		if got == ours {
			return true
		}
		if suffix, wild := strings.CutPrefix(ours, "*"); wild {
			label, is := strings.CutSuffix(got, suffix)
			if is && label != "" && !strings.Contains(label, ".") {
				return true
			}
		}
	}
	return false
}

// lower is strings.ToLower for ASCII: that of Unicode makes a k of the sign for Kelvin.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, text)
}

// portOf returns the port of a host, with its colon, "" if it has none.
func portOf(host string) string {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.Contains(host[:colon], ":") && !strings.HasSuffix(host[:colon], "]") {
		return ""
	}
	for _, digit := range host[colon+1:] {
		if digit < '0' || digit > '9' {
			return ""
		}
	}
	return host[colon:]
}

// isOfOurs reports whether a request comes from the page itself, or from no page. Whoever reads only is held to the same
// as who changes something: what is shown is nobody else's business. Only a link may lead here, to the page and no further.
func (c *Console) isOfOurs(r *http.Request) bool {
	if c.origin.Check(r) != nil {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "": // an older browser, a page that did not come by HTTPS, or no browser
		from := r.Header.Get("Origin")
		if from == "" {
			return true
		}
		u, err := url.Parse(from)
		return err == nil && u.Host == r.Host
	}
	rel, _ := c.relative(r)
	return rel == "" && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// accepts reports whether a request wants a media type by its name.
func accepts(r *http.Request, want string) bool {
	for _, line := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			if got, _, err := mime.ParseMediaType(part); err == nil && got == want {
				return true
			}
		}
	}
	return false
}
