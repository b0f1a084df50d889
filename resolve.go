package greenapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// resolvable are the placeholders of settings that are resolved when the config loads.
var resolvable = regexp.MustCompile(`\{(env|file)\.[^{}]*\}`)

var errPlaceholder = errors.New(`unknown placeholder; want {env.NAME}, or {file./path} with an absolute path; ` +
	`a brace that belongs to the value itself is written with a backslash before it, as in \{`)

// resolve replaces the placeholders of a setting. One that is unset, empty or unknown is an error,
// which quotes the placeholder but nothing around it, which may be a secret. What a placeholder
// stands for must not get into an error or a log: they quote what the config says.
func resolve(text string) (string, error) {
	for _, named := range resolvable.FindAllString(text, -1) {
		path, isFile := strings.CutPrefix(named, "{file.")
		if isFile && errors.Is(wantRegular(strings.TrimSuffix(path, "}")), errNotRegular) { // Caddy would wait for its end
			return "", fmt.Errorf("placeholder %s: %w", named, errNotRegular)
		}
	}
	resolved, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		for _, named := range resolvable.FindAllString(text, -1) {
			if _, err := caddy.NewReplacer().ReplaceOrErr(named, true, true); err != nil {
				return "", fmt.Errorf("placeholder %s is not set or empty", named)
			}
		}
		return "", errPlaceholder
	}
	if resolved == "" {
		return "", errors.New("empty value")
	}
	return resolved, nil
}

// withoutPath takes the path out of an error of the file system.
func withoutPath(err error) error {
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok {
		return wrapped.Err
	}
	return err
}

// pathError is the error of a file or directory that the config names. What does not look like a path
// is not quoted: it may be a token in the wrong place.
func pathError(said string, err error) error {
	if named := resolvable.FindString(said); strings.HasPrefix(named, "{file.") {
		return fmt.Errorf("%s: %w; %s stands for what is in that file: want a path such as %s",
			said, err, named, strings.TrimSuffix(strings.TrimPrefix(named, "{file."), "}"))
	}
	if filepath.IsAbs(said) || strings.HasPrefix(said, "/") || strings.HasPrefix(said, ".") || resolvable.MatchString(said) {
		return fmt.Errorf("%s: %w", said, err)
	}
	return fmt.Errorf("%w; want a path such as /etc/green-api/instances", err)
}

// hiding is an error that shows what the config says in place of what that stands for.
type hiding struct {
	error
	text string
}

func (e hiding) Error() string { return e.text }

func (e hiding) Unwrap() error { return e.error }

// hideURL takes a URL out of an error, and its host, if the config has a placeholder in its place.
func hideURL(err error, said, value string) error {
	if err == nil || said == value {
		return err
	}
	text := strings.ReplaceAll(err.Error(), value, said)
	if target, parseErr := url.Parse(value); parseErr == nil {
		for _, part := range []string{target.Host, target.Hostname()} {
			if part != "" {
				text = strings.ReplaceAll(text, part, hostOf(said))
			}
		}
	}
	return hiding{err, text}
}

var saidHost = regexp.MustCompile(`^(?:[a-z]+://)?((?:\{[^{}]*\}|[^/?#{}])*)`)

// hostOf is the host of a URL that may have placeholders. The rest may be a secret.
func hostOf(said string) string {
	host := saidHost.FindStringSubmatch(said)[1]
	return host[strings.LastIndex(host, "@")+1:]
}
