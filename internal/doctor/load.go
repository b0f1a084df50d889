package doctor

import (
	"regexp"
	"strings"
)

var (
	// stations are what Caddy prepends to the cause of an error on its way up.
	stations = regexp.MustCompile(`^(?s:.*)(?:adapting config using \w*|parsing caddyfile tokens for '[^']*'|loading [\w.]+ app module|` +
		`provision [\w.]+|loading handler modules: position \d+|loading matcher modules: module name '[^']*'|setting up (?:route|sub)\w*|loading module '[^']*'): `)
	atLine      = regexp.MustCompile(`^(.*), at (\S+:\d+)(?: import chain: .*)?$`)
	fromLine    = regexp.MustCompile(`^(\S+:\d+): (.*)$`)
	unknownWord = regexp.MustCompile(`unrecognized (?:directive|global option|servers option|subdirective):? '?(\w+)(=?)`)
	noSource    = regexp.MustCompile(`http\.ip_sources\.(?:\d+\.\d|[\da-f]*:)`)
)

// refusal returns the finding for a config that does not load: the last cause of the error, on one line.
func refusal(file string, err error) Finding {
	cause := strings.Join(strings.Fields(err.Error()), " ")
	cause = cause[len(stations.FindString(cause)):]
	f := Finding{Kind: DoesNotLoad, Level: Error, Where: file, Message: "the config does not load"}
	if parts := atLine.FindStringSubmatch(cause); parts != nil {
		cause, f.Where = parts[1], parts[2]
	} else if parts := fromLine.FindStringSubmatch(cause); parts != nil {
		f.Where, cause = parts[1], parts[2]
	}
	if found := unknownWord.FindStringSubmatch(cause); found != nil {
		word := found[1] + found[2]
		if ours := InsteadOf(word); ours != "" {
			cause = word + " is a word of nginx's; " + ours
		}
	}
	if noSource.MatchString(cause) {
		cause += "; want 'static' before the addresses, as in 'trusted_proxies static 10.0.0.0/8'"
	}
	if strings.Contains(cause, "but not trusted_proxies_strict") {
		f.Kind, f.Message = ProxiesNotStrict, "the config does not load: the server trusts proxies without trusted_proxies_strict, and anyone could invent an address"
		cause = strictFix
	}
	if strings.Contains(cause, "is not set or empty") {
		cause += "; give this command the environment and the files that the edge has"
	}
	f.Fix = cause
	return f
}
