package greenapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// Auth is the gate that decides which tokens are let in.
//
// A token is written as in the console's field `webhookUrlToken`. GREEN-API sends it in the header
// `Authorization`: `Bearer abc` and `Basic abc` unchanged, a bare `abc` as `Bearer abc` (GREEN-API docs:
// "SetSettings", read 2026-07). Placeholders `{env.*}` and `{file.*}` are resolved at load and not shown by
// Caddy's admin API; an empty one is an error.
type Auth struct {
	// Takes notifications without a token.
	Off bool `json:"off,omitempty"`

	// Tokens for every instance without tokens of its own. Several may be valid at a time, so that a token
	// can be rotated without a gap.
	Token []string `json:"token,omitempty"`

	// Tokens of single instances, by idInstance. An instance listed here is admitted by its own tokens
	// only. Without `token`, only instances listed here are admitted.
	Instance map[string][]string `json:"instance,omitempty"`

	// A file that lists more instances: an ID and its tokens per line, # for a comment. The file is
	// followed: a change takes effect within seconds. If it is unusable or seems to have been cut short,
	// the last good copy stays in effect.
	Instances string `json:"instances,omitempty"`

	// Refuses nothing; what would have been refused is logged and counted.
	ReportOnly bool `json:"report_only,omitempty"`

	set    *atomic.Pointer[token.Set] // the tokens in effect
	nobody bool                       // no token is: the block only receives
}

func (a *Auth) provision(ctx caddy.Context, tell func(outcome.Note)) error {
	a.set = new(atomic.Pointer[token.Set])
	if a.Off {
		if len(a.Token)+len(a.Instance) > 0 || a.Instances != "" || a.ReportOnly {
			return errors.New("off: takes no other option beside it")
		}
		a.set.Store(new(token.Set))
		return nil
	}
	if a.nobody {
		set, err := token.NewSet(nil, nil, resolve)
		a.set.Store(set)
		return err
	}
	if len(a.Token)+len(a.Instance) == 0 && a.Instances == "" {
		return errors.New("no token; want 'token', 'instance', 'instances', or 'auth off' to take notifications without one")
	}
	set, err := token.NewSet(a.Token, a.Instance, resolve)
	if err != nil || a.Instances == "" {
		a.set.Store(set)
		return err
	}
	// From here on, an error is about the file.
	if err := followFile(ctx, a.Instances, "instances", tell, a.parseFile); err != nil {
		return fmt.Errorf("instances: %w", err)
	}
	return nil
}

// parseFile builds a set from a copy of the instances file and the tokens in the config.
func (a *Auth) parseFile(text []byte) (follow.Entries, func(), error) {
	listed, err := token.ParseList(text)
	if err != nil {
		return nil, nil, err
	}
	all := maps.Clone(listed)
	for id, tokens := range a.Instance {
		if _, twice := listed[notification.SameInstance(id)]; twice {
			return nil, nil, fmt.Errorf("instance %s is in the config, too; want it in one place", id)
		}
		all[id] = tokens
	}
	set, err := token.NewSet(a.Token, all, resolve)
	if err != nil {
		return nil, nil, err
	}
	return listed, func() { a.set.Store(set) }, nil
}

// worth returns what the header's token is worth.
func (a *Auth) worth(header http.Header) outcome.TokenState {
	state, _ := a.weigh(header, a.set.Load())
	return state
}

// look looks up the request's token, for all steps that ask about it.
func (a *Auth) look(v *visit) {
	v.tokens = a.set.Load()
	v.Token, v.grant = a.weigh(v.Header, v.tokens)
}

// weigh returns what the header's token is worth, and what it admits.
func (a *Auth) weigh(header http.Header, set *token.Set) (outcome.TokenState, *token.Grant) {
	if a.Off {
		return outcome.TokenOff, nil
	}
	values := header["Authorization"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return outcome.TokenNone, nil
	}
	grant := set.Find(header)
	if grant == nil {
		return outcome.TokenWrong, nil
	}
	return outcome.TokenRight, grant
}

// check refuses a request without a right token.
func (a *Auth) check(v *visit) *outcome.Verdict {
	if v.Token == outcome.TokenOff || v.Token == outcome.TokenRight {
		return nil
	}
	why := reason.Reason(reason.BadToken)
	if v.Token == outcome.TokenNone {
		why = reason.NoToken
	}
	scheme := "Bearer"
	if a.set.Load().Basic {
		scheme = `Basic realm="green_api"`
	}
	end := &outcome.Verdict{
		Outcome: outcome.Refused, Reason: why, Status: http.StatusUnauthorized, Level: zap.WarnLevel,
		Header: "Www-Authenticate", Value: scheme, // canonical, as setting it would make it
		Fields: append(make([]zap.Field, 0, 2), zap.String("client_ip", outcome.Clip(v.Client))),
	}
	if a.ReportOnly { // the next steps still need the body
		return end
	}
	if v.Claimed = claimedInstance(v); v.Claimed != "" {
		end.Fields = append(end.Fields, zap.String("claimed_instance", v.Claimed))
	}
	return end
}

const (
	maxClaim     = 64 << 10
	maxClaimWait = time.Second
)

// claimedInstance returns the instance that the body of a refused request claims to come from, or "". It
// cannot be trusted, but shows the operator which of many instances has a wrong token, and thus a blocked
// queue.
func claimedInstance(v *visit) string {
	deadline := time.Now().Add(maxClaimWait)
	if v.r.Method != http.MethodPost || v.r.Header.Get("Expect") != "" ||
		http.NewResponseController(v.w).SetReadDeadline(deadline) != nil {
		return ""
	}
	body, err := readAll(v.r.Body, v.r.ContentLength, maxClaim+1)
	if err != nil || len(body) > maxClaim {
		return ""
	}
	v.readOff = true
	n, err := notification.Parse(body)
	if err != nil {
		return ""
	}
	return n.Instance
}

// checkInstance refuses a notification if the token is not valid for its instance.
func (a *Auth) checkInstance(v *visit) *outcome.Verdict {
	if v.Token == outcome.TokenOff || v.Token != outcome.TokenRight && a.ReportOnly { // already reported
		return nil
	}
	set, grant := a.set.Load(), v.grant
	if set != v.tokens { // changed while the body came
		grant = set.Find(v.Header)
	}
	own := set.Own[v.N.Instance]
	if set.Lets(grant, v.N.Instance) {
		return nil
	}
	return &outcome.Verdict{
		Outcome: outcome.Refused, Reason: reason.InstanceNotAllowed, Status: http.StatusForbidden, Level: zap.WarnLevel,
		Fields: []zap.Field{zap.String("client_ip", outcome.Clip(v.Client)), zap.Bool("instance_listed", own)},
	}
}

// refused remembers that an instance is refused, unless anyone could have made that up:
//
//   - With a right token, the sender is no stranger. If he names an instance that nobody knows, it is remembered apart.
//   - Without, only what GREEN-API itself posts can be believed, so ip_filter must have let the sender in; and only
//     of an instance that is known.
func (h *Handler) refused(v *visit, why reason.Reason) {
	instance := v.Instance()
	stranger := why == reason.BadToken || why == reason.NoToken
	if instance == "" || !stranger && why != reason.InstanceNotAllowed || h.app.operator.refused.Lately(instance, why, v.Started) {
		return
	}
	known := h.app.knows(instance)
	if !stranger || known && !h.IPFilter.isOpen() {
		h.app.operator.refused.Add(watch.Refusal{Instance: instance, Name: h.Name, Reason: why, Known: known, At: v.Started.UTC()})
	}
}

// isOpen reports whether the gate lets everyone in, whatever the token.
func (a *Auth) isOpen() bool { return a.Off || a.ReportOnly }

// headerFor returns the header that a genuine notification of an instance has.
func (a *Auth) headerFor(instance string) string {
	set := a.set.Load()
	if set.Own[instance] {
		return set.Headers[instance]
	}
	return set.Headers[""]
}

// configured reports whether an instance has tokens of its own in the config.
func (a *Auth) configured(instance string) bool { return a.set.Load().Own[instance] }

// configuredInstances returns the instances that have tokens of their own in the config.
func (a *Auth) configuredInstances() []string { return slices.Sorted(maps.Keys(a.set.Load().Own)) }

// unmarshalCaddyfile sets up the gate from Caddyfile tokens. Syntax:
//
//	auth [off] {
//	    token     <tokens...>
//	    instance  <id> <tokens...>
//	    instances <file>
//	    report_only
//	}
func (a *Auth) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	var err error
	if a.Off, err = offArg(d); err != nil {
		return err
	}
	return eachOption(d, "auth", []option{
		{name: "token", parse: func() (err error) {
			if a.Token, err = tokenArgs(d); err == nil && len(a.Token) == 0 {
				err = d.Err("token: want one argument or more")
			}
			return err
		}},
		{name: "instance", repeats: true, parse: func() error {
			args, err := tokenArgs(d)
			if err != nil {
				return err
			}
			if len(args) < 2 {
				return d.Err("instance: want an id and one token or more") // without the arguments: they may be a token
			}
			if !notification.IsInstanceID(args[0]) {
				return d.WrapErr(token.ErrInstanceID)
			}
			if _, said := a.Instance[args[0]]; said {
				return d.Errf("instance %s is already specified; give all its tokens on one line", args[0])
			}
			if a.Instance == nil {
				a.Instance = make(map[string][]string)
			}
			a.Instance[args[0]] = args[1:]
			return nil
		}},
		{name: "instances", parse: func() error { return textArg(d, &a.Instances) }},
		{name: "report_only", parse: func() error { return flagArg(d, &a.ReportOnly) }},
	})
}

// tokenArgs returns the arguments of an option, of which some are tokens. It does not quote them.
func tokenArgs(d *caddyfile.Dispenser) (args []string, err error) {
	option := d.Val()
	for d.NextArg() {
		if strings.HasSuffix(d.Val(), ";") && !d.Token().Quoted() {
			return nil, d.Errf("%s: an argument ends in ; as in nginx; want nothing at the end of a line, and quotes around what ends in ; (also around {args[0]} or {$NAME} that stands for it)", option)
		}
		args = append(args, d.Val())
	}
	return args, nil
}

// admits reports whether the gate lets in a notification of an instance.
func (a *Auth) admits(header http.Header, instance string) bool {
	return a.Off || a.ReportOnly || a.set.Load().Admits(header, instance)
}

// hasTokenFor reports whether there is a token with which the gate lets in notifications of an instance.
func (a *Auth) hasTokenFor(instance string) bool {
	return a.Off || a.ReportOnly || a.headerFor(instance) != ""
}
