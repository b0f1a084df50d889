package greenapi

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/caddyserver/caddy/v2"
)

// resolvable are the placeholders of settings that are resolved when the config loads.
var resolvable = regexp.MustCompile(`\{(env|file)\.[^{}]*\}`)

// resolve replaces the placeholders of a setting. One that is unset, empty or unknown is an error,
// which quotes the placeholder but nothing around it, which may be a secret.
func resolve(text string) (string, error) {
	resolved, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		for _, named := range resolvable.FindAllString(text, -1) {
			if _, err := caddy.NewReplacer().ReplaceOrErr(named, true, true); err != nil {
				return "", fmt.Errorf("placeholder %s is not set or empty", named)
			}
		}
		return "", errors.New("unknown placeholder; want {env.NAME}, or {file./path} with an absolute path")
	}
	if resolved == "" {
		return "", errors.New("empty value")
	}
	return resolved, nil
}
