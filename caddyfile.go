package greenapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("green_api", parseHandler)
	httpcaddyfile.RegisterDirectiveOrder("green_api", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterGlobalOption("green_api", parseApp)
}

// parseHandler sets up a Handler from Caddyfile tokens. Syntax:
//
//	green_api [<matcher>] {
//	    name <name>
//	    log_body
//	    ip_filter [off] {
//	        ...
//	    }
//	    auth [off] {
//	        ...
//	    }
//	    validate {
//	        ...
//	    }
//	    deliver {
//	        ...
//	    }
//	    queue {
//	        ...
//	    }
//	    receive <instance> <token> {
//	        ...
//	    }
//	    reverse_proxy [<upstreams...>] {
//	        ...
//	    }
//	}
func parseHandler(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	d := helper.Dispenser
	d.Next() // green_api
	if d.NextArg() {
		return nil, d.Errf("green_api takes no argument but a matcher: '%s'; a path begins with /, as in 'green_api /green-api/webhook*'", d.Val())
	}
	h := new(Handler)
	err := eachOption(d, "green_api", []option{
		{name: "name", parse: func() error { return textArg(d, &h.Name) }},
		{name: "log_body", parse: func() error { return flagArg(d, &h.LogBody) }},
		{name: "ip_filter", parse: func() error {
			h.IPFilter = new(IPFilter)
			return h.IPFilter.unmarshalCaddyfile(d)
		}},
		{name: "auth", parse: func() error {
			h.Auth = new(Auth)
			return h.Auth.unmarshalCaddyfile(d)
		}},
		{name: "validate", parse: func() error {
			h.Validate = new(Validate)
			return h.Validate.unmarshalCaddyfile(d)
		}},
		{name: "deliver", parse: func() error {
			h.Deliver = new(Deliver)
			return h.Deliver.unmarshalCaddyfile(d)
		}},
		{name: "queue", parse: func() error {
			h.Queue = new(Queue)
			return h.Queue.unmarshalCaddyfile(d)
		}},
		{name: "receive", repeats: true, parse: func() error {
			c := new(Receive)
			h.Receive = append(h.Receive, c)
			return c.unmarshalCaddyfile(d)
		}},
		{name: "reverse_proxy", parse: func() (err error) {
			h.ReverseProxy, err = unmarshalProxy(helper, d.NewFromNextSegment())
			return err
		}},
	})
	if err != nil {
		return nil, err
	}
	if h.Auth == nil && len(h.Receive) == 0 {
		return nil, d.Err("auth is required; want a block with 'token {env.GREEN_API_TOKEN}' in it, " +
			"or 'auth off' to take notifications without a token")
	}
	return h, nil
}

// parseApp sets up the App from the global option green_api.
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // green_api
	if existing != nil {
		return nil, d.Err("green_api is already specified")
	}
	app := new(App)
	if err := app.unmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "green_api", Value: caddyconfig.JSON(app, nil)}, nil
}

// An option of a block. parse is called with the dispenser on the option's name.
type option struct {
	name    string
	repeats bool // may be given more than once
	parse   func() error
}

// eachOption parses the block that follows.
func eachOption(d *caddyfile.Dispenser, block string, options []option) error {
	said := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		at := slices.IndexFunc(options, func(o option) bool { return o.name == name })
		if at < 0 {
			return unrecognized(d, block, options)
		}
		if said[name] && !options[at].repeats {
			return d.Errf("%s is already specified; want it once", name)
		}
		said[name] = true
		if err := options[at].parse(); err != nil {
			return err
		}
	}
	return nil
}

// unrecognized returns an error that says what the block takes instead of the name that d is on.
func unrecognized(d *caddyfile.Dispenser, block string, options []option) error {
	name := d.Val()
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.name
	}
	if err := refuseNginxWord(d, name); err != nil {
		return err
	}
	if block == "green_api" && slices.Contains([]string{"quarantine", "alert", "metrics"}, name) {
		return d.Errf("%s is a global option; want it in 'green_api' in the block at the top of the file", name)
	}
	if slices.Contains([]string{"auth", "receive", "alert"}, block) && !slices.ContainsFunc(names, func(option string) bool { return slipOf(option, name) }) ||
		!optionLike.MatchString(name) { // it may be a token
		return d.Errf("unrecognized %s option; want %s", block, anyOf(names))
	}
	return d.Errf("unrecognized %s option '%s'; want %s", block, name, anyOf(names))
}

// refuseNginxWord returns an error that says what to write instead if the option is an nginx word.
func refuseNginxWord(d *caddyfile.Dispenser, option string) error {
	ours := doctor.InsteadOf(option)
	if ours == "" {
		return nil
	}
	if args := d.RemainingArgs(); option == "allow" && len(args) > 0 && strings.TrimSuffix(args[0], ";") == "all" {
		return d.Errf("allow all is nginx's; want 'ip_filter off' to let every address in")
	}
	return d.Errf("%s is a word of nginx's; %s", option, ours)
}

// optionLike matches a misspelt option, and hardly ever a token.
var optionLike = regexp.MustCompile(`^([a-z_]{1,16}|\{)$`)

// slipOf reports whether name is option with one letter wrong, missing or added.
func slipOf(option, name string) bool {
	if len(name) < len(option) {
		option, name = name, option
	}
	at := 0
	for at < len(option) && option[at] == name[at] {
		at++
	}
	if len(name) == len(option) {
		return option[at:] == "" || option[at+1:] == name[at+1:]
	}
	return len(name) == len(option)+1 && option[at:] == name[at+1:]
}

// anyOf returns the names as a choice.
func anyOf(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// offArg parses the only argument that a gate may have.
func offArg(d *caddyfile.Dispenser) (off bool, err error) {
	gate := d.Val()
	args := d.RemainingArgs()
	if len(args) > 1 || len(args) == 1 && args[0] != "off" {
		return false, d.Errf("invalid argument of %s; want off, or a block", gate)
	}
	return len(args) == 1, nil
}

// noArgs refuses arguments.
func noArgs(d *caddyfile.Dispenser) error {
	name := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no argument; want a block", name)
	}
	return nil
}

// flagArg parses an option without arguments, whose presence turns it on.
func flagArg(d *caddyfile.Dispenser, into *bool) error {
	option := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no argument", option)
	}
	*into = true
	return nil
}

// textArg parses one argument.
func textArg(d *caddyfile.Dispenser, into *string) error {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("%s: want one argument", option)
	}
	*into = args[0]
	return nil
}

// listArgs parses one argument or more.
func listArgs(d *caddyfile.Dispenser, into *[]string) error {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s: want one argument or more", option)
	}
	*into = args
	return nil
}

// choiceArg parses one of the choices.
func choiceArg(d *caddyfile.Dispenser, into *string, choices ...string) error {
	option := d.Val()
	if err := textArg(d, into); err != nil {
		return err
	}
	if !slices.Contains(choices, *into) {
		return d.Errf("%s: invalid value '%s'; want %s", option, *into, anyOf(choices))
	}
	return nil
}

// sizeArg parses a number of bytes.
func sizeArg(d *caddyfile.Dispenser, into *int64) error {
	option := d.Val()
	var text string
	if err := textArg(d, &text); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > math.MaxInt64 {
		return d.Errf("invalid %s '%s'; want a size such as 1MiB", option, text)
	}
	*into = int64(size)
	return nil
}

// numberArg parses a number that is at least least.
func numberArg(d *caddyfile.Dispenser, into *int, least int, want string) error {
	option := d.Val()
	var text string
	if err := textArg(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return d.Errf("invalid %s '%s'; want %s", option, text, want)
	}
	*into = n
	return nil
}

// offInstead reports whether the only argument is off. Otherwise it consumes nothing.
func offInstead(d *caddyfile.Dispenser) bool {
	if d.CountRemainingArgs() != 1 {
		return false
	}
	d.NextArg()
	if d.Val() == "off" {
		return true
	}
	d.Prev()
	return false
}

// durationArg parses a duration.
func durationArg(d *caddyfile.Dispenser, into *caddy.Duration) error {
	option := d.Val()
	var text string
	if err := textArg(d, &text); err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return d.Errf("invalid %s '%s'; want a duration such as 60s or 7d", option, text)
	}
	*into = caddy.Duration(duration)
	return nil
}

// resolvable matches the placeholders in settings that are resolved when the config loads.
var resolvable = regexp.MustCompile(`\{(env|file)\.[^{}]*\}`)

var errPlaceholder = errors.New(`unknown placeholder; want {env.NAME}, or {file./path} with an absolute path; ` +
	`a brace that belongs to the value itself is written with a backslash before it, as in \{`)

// resolve replaces the placeholders of a setting. An unset, empty or unknown one is an error, which quotes
// the placeholder but nothing around it, as that may be a secret. The value of a placeholder must not get
// into an error or a log: these quote what the config says.
func resolve(text string) (string, error) {
	for _, named := range resolvable.FindAllString(text, -1) {
		path, isFile := strings.CutPrefix(named, "{file.")
		if isFile && errors.Is(follow.WantRegular(strings.TrimSuffix(path, "}")), follow.ErrNotRegular) { // Caddy would wait for its end
			return "", fmt.Errorf("placeholder %s: %w", named, follow.ErrNotRegular)
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

// pathError returns the error for a file or directory that the config names. It does not quote text that
// does not look like a path: that may be a token in the wrong place.
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

// hiding is an error that shows the config's text in place of the resolved value.
type hiding struct {
	error
	text string
}

func (e hiding) Error() string { return e.text }

func (e hiding) Unwrap() error { return e.error }

// hidePath removes a directory from an error if the config has a placeholder for it.
func hidePath(err error, said, path string) error {
	if err == nil || !resolvable.MatchString(said) {
		return err
	}
	text := err.Error()
	if wrapped, ok := errors.AsType[*fs.PathError](err); ok { // about a parent directory
		text = strings.ReplaceAll(text, wrapped.Path, said)
	}
	return hiding{err, strings.ReplaceAll(text, path, said)}
}

// hideURL removes a URL and its host from an error if the config has a placeholder for it.
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

// hostOf returns the host of a URL that may have placeholders. The rest may be a secret.
func hostOf(said string) string {
	host := saidHost.FindStringSubmatch(said)[1]
	return host[strings.LastIndex(host, "@")+1:]
}

// rememberedCopy is an entry of copies.
type rememberedCopy struct {
	follow.Memory
	every time.Duration // how often the file is looked at; 0 for follow.Every
}

// Destruct has nothing to do.
func (*rememberedCopy) Destruct() error { return nil }

// loadedAgainKey is the context key of whether the block is the same as in the previous config. Caddy loads
// an identical config again only with `caddy reload --force`.
type loadedAgainKey struct{}

// followFile loads a file that lists things of a kind, and follows it for as long as the config runs.
func followFile(ctx caddy.Context, said, kind string, tell func(outcome.Note), parse follow.Parse) error {
	path, err := resolve(said)
	if err != nil {
		return err
	}
	key := kind + " " + path
	shared, _, _ := copies.LoadOrNew(key, func() (caddy.Destructor, error) { return new(rememberedCopy), nil }) // never fails
	context.AfterFunc(ctx, func() { _, _ = copies.Delete(key) })
	meant, inBlock := ctx.Value(loadedAgainKey{}).(bool)
	remembered := shared.(*rememberedCopy)
	file := &follow.File{
		Said: said, Path: path, Kind: kind, Parse: parse, Log: ctx.Logger(),
		Memory: &remembered.Memory, Every: remembered.every, Forced: meant || !inBlock,
		Tell: func(err error) {
			tell(outcome.Note{Reason: reason.BadFile, Kind: notification.KindNone, Level: zap.ErrorLevel, More: said + ": " + err.Error() + ".", At: time.Now()})
		},
	}
	if err := file.Load(); err != nil {
		return pathError(said, err)
	}
	go file.Follow(ctx)
	return nil
}
