package doctor

import (
	"regexp"
	"strings"
)

var (
	// stations are what Caddy puts before the cause of an error on its way up.
	stations = regexp.MustCompile(`^(?s:.*)(?:adapting config using \w*|parsing caddyfile tokens for '[^']*'|loading [\w.]+ app module|` +
		`provision [\w.]+|loading handler modules: position \d+|loading matcher modules: module name '[^']*'|setting up (?:route|sub)\w*|loading module '[^']*'): `)
	atLine       = regexp.MustCompile(`^(.*), at (\S+:\d+)(?: import chain: .*)?$`)
	fromLine     = regexp.MustCompile(`^(\S+:\d+): (.*)$`)
	notDirective = regexp.MustCompile(`unrecognized directive: (\w+)`)
)

// refusal is the finding of a config that does not load: the last cause of the error, as one line.
func refusal(file string, err error) Finding {
	cause := strings.Join(strings.Fields(err.Error()), " ")
	cause = cause[len(stations.FindString(cause)):]
	f := Finding{Kind: DoesNotLoad, Level: Error, Where: file, Message: "the config does not load"}
	if parts := atLine.FindStringSubmatch(cause); parts != nil {
		cause, f.Where = parts[1], parts[2]
	} else if parts := fromLine.FindStringSubmatch(cause); parts != nil {
		f.Where, cause = parts[1], parts[2]
	}
	if word := notDirective.FindStringSubmatch(cause); word != nil {
		if ours := InsteadOf(word[1]); ours != "" {
			cause = word[1] + " is a word of nginx's; " + ours
		}
	}
	if strings.Contains(cause, "but not trusted_proxies_strict") {
		f.Kind, f.Message = ProxiesNotStrict, "the config does not load: the server trusts proxies without trusted_proxies_strict, and anyone could invent an address"
		cause = strictFix
	}
	f.Fix = cause
	return f
}
