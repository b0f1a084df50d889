package greenapi

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// Auth is the gate that says which tokens a request must have.
//
// A token is written as in the console's field `webhookUrlToken`. GREEN-API sends it in the header
// `Authorization`: `Bearer abc` and `Basic abc` as they stand, a bare `abc` as `Bearer abc`
// (GREEN-API docs: "SetSettings", read 2026-07). Placeholders `{env.*}` and `{file.*}` are
// resolved at load and are not shown by Caddy's admin API; an empty one is an error.
type Auth struct {
	// Takes notifications without a token.
	Off bool `json:"off,omitempty"`

	// Tokens for every instance without tokens of its own. Several may be valid at a time, so that
	// a token can be changed without a gap.
	Token []string `json:"token,omitempty"`

	// Tokens of single instances, by idInstance. An instance listed here is admitted by its own
	// tokens only. Without `token`, only instances listed here are admitted.
	Instance map[string][]string `json:"instance,omitempty"`

	// A file with more of them: an id and its tokens a line, # for a comment. It is followed: a
	// change is in force within seconds, and a file that cannot be used, or seems to have been cut
	// short, leaves the last good copy in force.
	Instances string `json:"instances,omitempty"`

	// Refuses nothing: what would have been is logged and counted.
	ReportOnly bool `json:"report_only,omitempty"`

	set    *atomic.Pointer[token.Set] // all tokens that are in force
	nobody bool                       // none is: the block only receives
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
	// What is wrong from here on is wrong with the file.
	if err := followFile(ctx, a.Instances, "instances", tell, a.parseFile); err != nil {
		return fmt.Errorf("instances: %w", err)
	}
	return nil
}

// parseFile makes a set of a copy of the instances file and of the tokens of the config.
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

// worth says what the header's token is worth.
func (a *Auth) worth(header http.Header) outcome.TokenState {
	if a.Off {
		return outcome.TokenOff
	}
	values := header["Authorization"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return outcome.TokenNone
	}
	if a.set.Load().Find(header) == nil {
		return outcome.TokenWrong
	}
	return outcome.TokenRight
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
		Header: "WWW-Authenticate", Value: scheme, Fields: []zap.Field{zap.String("client_ip", outcome.Clip(v.Client))},
	}
	if a.ReportOnly { // the body is still needed
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

// claimedInstance is the instance that the body of a refused request says it comes from, or "".
// It is nothing to trust, but tells the operator which of many instances has a mis-set token, and
// so a queue that stands still.
func claimedInstance(v *visit) string {
	deadline := time.Now().Add(maxClaimWait)
	if v.r.Method != http.MethodPost || v.r.Header.Get("Expect") != "" ||
		http.NewResponseController(v.w).SetReadDeadline(deadline) != nil {
		return ""
	}
	body, err := io.ReadAll(io.LimitReader(v.r.Body, maxClaim+1))
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

// checkInstance refuses a notification of an instance that the token is not for.
func (a *Auth) checkInstance(v *visit) *outcome.Verdict {
	if v.Token == outcome.TokenOff || v.Token != outcome.TokenRight && a.ReportOnly { // said already
		return nil
	}
	set := a.set.Load()
	own := set.Own[v.N.Instance]
	if set.Admits(v.Header, v.N.Instance) {
		return nil
	}
	return &outcome.Verdict{
		Outcome: outcome.Refused, Reason: reason.InstanceNotAllowed, Status: http.StatusForbidden, Level: zap.WarnLevel,
		Fields: []zap.Field{zap.String("client_ip", outcome.Clip(v.Client)), zap.Bool("instance_listed", own)},
	}
}

// isOpen reports whether the gate lets everyone through, whatever the token.
func (a *Auth) isOpen() bool { return a.Off || a.ReportOnly }

// headerFor is the header that a genuine notification of an instance has.
func (a *Auth) headerFor(instance string) string {
	set := a.set.Load()
	if set.Own[instance] {
		return set.Headers[instance]
	}
	return set.Headers[""]
}

// configured reports whether an instance has tokens of its own in the config.
func (a *Auth) configured(instance string) bool { return a.set.Load().Own[instance] }

// configuredInstances are those that have tokens of their own in the config.
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
		{name: "token", parse: func() error { return listArgs(d, &a.Token) }},
		{name: "instance", repeats: true, parse: func() error {
			args := d.RemainingArgs()
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

// admits reports whether the gate lets in a notification of an instance.
func (a *Auth) admits(header http.Header, instance string) bool {
	return a.Off || a.ReportOnly || a.set.Load().Admits(header, instance)
}

// hasTokenFor reports whether there is a token with which the gate lets in notifications of an instance.
func (a *Auth) hasTokenFor(instance string) bool {
	return a.Off || a.ReportOnly || a.headerFor(instance) != ""
}
