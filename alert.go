package greenapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
)

const defaultAlertEvery = 5 * time.Minute

// Alert sends the operator an HTTP POST when something goes wrong.
//
// Everything with the same reason and type of notification goes into one alert: the first is sent two
// seconds after it happened, and then one each `every` for as long as it continues.
type Alert struct {
	// The URL to post to, http or https. Placeholders `{env.*}` and `{file.*}` are resolved at load.
	URL string `json:"url"`

	// Minimum time between two alerts with the same reason and type. Default: 5m.
	Every caddy.Duration `json:"every,omitempty"`

	// Header fields to send. Default: `Content-Type: application/json`.
	Header map[string][]string `json:"header,omitempty"`

	// Body to send. Placeholders: `{alert.text}`, a sentence that says it all, `{alert.reason}`,
	// `{alert.type}`, `{alert.level}`, `{alert.count}`, `{alert.first}` and `{alert.last}` (RFC 3339),
	// `{alert.instances}`, `{alert.example}` (an ID in the quarantine), `{alert.host}`, `{env.*}` and
	// `{file.*}`. If the content type is JSON, they are escaped for use in a JSON string. Default: an
	// object with all of them.
	Body string `json:"body,omitempty"`

	// Sends an alert when a configured instance has sent nothing for this long. Default: never.
	Silence caddy.Duration `json:"silence,omitempty"`

	endpoint tell.Endpoint
}

func (a *Alert) provision() error {
	resolved, err := resolve(a.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	target, err := url.Parse(resolved)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return errors.New("url: invalid; want an http or https URL, such as https://alerts.example.com/hook") // not quoted: it may contain a secret
	}
	if a.Every == 0 {
		a.Every = caddy.Duration(defaultAlertEvery)
	}
	if a.Every < 0 || a.Silence < 0 {
		return errors.New("every, silence: want a duration above 0s")
	}
	header, err := a.resolvedHeader()
	if err != nil {
		return err
	}
	if a.Body == "" {
		a.Body = tell.DefaultBody
	}
	body, err := tell.NewBody(a.Body, strings.Contains(header.Get("Content-Type"), "json"), resolve)
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	a.endpoint = tell.Endpoint{
		URL: resolved, Host: hostOf(a.URL), Header: header, Body: body, Every: time.Duration(a.Every), Silence: time.Duration(a.Silence),
		Hide: func(err error) error { return hideURL(err, a.URL, resolved) },
	}
	return nil
}

func (a *Alert) resolvedHeader() (http.Header, error) {
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"caddy-green-api"}}
	for name, values := range a.Header {
		header.Del(name)
		for _, value := range values {
			resolved, err := resolve(value)
			if err != nil {
				return nil, fmt.Errorf("header %s: %w", name, err)
			}
			if strings.ContainsFunc(resolved, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return nil, fmt.Errorf("header %s: a control character, such as a line end, in the value; want it on one line", name)
			}
			header.Add(name, resolved)
		}
	}
	return header, nil
}

// endpoints returns where alerts are sent.
func (a *App) endpoints() (all []tell.Endpoint) {
	for _, alert := range a.Alerts {
		all = append(all, alert.endpoint)
	}
	return all
}

// testAlerts sends a test alert through each alert.
func (a *App) testAlerts(ctx context.Context) (tests []api.AlertTest) {
	for i, trial := range a.operator.desk.Try(ctx, time.Now()) {
		test := api.AlertTest{Alert: i + 1, Endpoint: trial.Host}
		if trial.Err != nil {
			test.Error = trial.Err.Error()
		}
		tests = append(tests, test)
	}
	return tests
}

// unmarshalCaddyfile sets up an alert from Caddyfile tokens. Syntax:
//
//	alert <url> {
//	    every   <duration>
//	    header  <name> <value>
//	    body    <text>
//	    silence <duration>
//	}
func (a *Alert) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := textArg(d, &a.URL); err != nil {
		return err
	}
	return eachOption(d, "alert", []option{
		{name: "every", parse: func() error { return durationArg(d, &a.Every) }},
		{name: "header", repeats: true, parse: func() error {
			args := d.RemainingArgs()
			if len(args) != 2 {
				return d.Err("header: want a name and a value")
			}
			if a.Header == nil {
				a.Header = make(map[string][]string)
			}
			a.Header[args[0]] = append(a.Header[args[0]], args[1])
			return nil
		}},
		{name: "body", parse: func() error { return textArg(d, &a.Body) }},
		{name: "silence", parse: func() error { return durationArg(d, &a.Silence) }},
	})
}

// watchSilence reports configured instances that have sent nothing for long, until ctx ends.
func (a *App) watchSilence(ctx context.Context) {
	lengths := a.silences()
	if len(lengths) == 0 {
		return
	}
	ticker := time.NewTicker(min(max(lengths[0]/20, 50*time.Millisecond), 30*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			a.tellOfSilent(lengths, now)
		}
	}
}

// silences returns the distinct lengths of silence that the alerts ask for, shortest first.
func (a *App) silences() (lengths []time.Duration) {
	for _, alert := range a.Alerts {
		if alert.Silence > 0 {
			lengths = append(lengths, time.Duration(alert.Silence))
		}
	}
	slices.Sort(lengths)
	return slices.Compact(lengths)
}

func (a *App) tellOfSilent(lengths []time.Duration, now time.Time) {
	var configured []string
	for _, b := range a.blocks {
		configured = append(configured, b.handler.configuredInstances()...)
	}
	configured = withoutStandby(configured, receivers.States())
	for _, one := range a.operator.silent.Watch(configured, lengths, now) {
		a.logger.Warn("nothing has come from an instance for long", zap.String("instance", one.Instance), zap.Duration("silence", one.Length))
		a.operator.desk.Tell(outcome.Note{Reason: reason.Silence, Kind: notification.KindNone, Level: zap.WarnLevel, Instance: one.Instance, Silence: one.Length, At: now, Trouble: silenceOf(one.Instance)})
	}
}

// withoutStandby leaves out the instances that another edge receives for: nothing comes from them here.
func withoutStandby(instances []string, states []receiver.State) []string {
	return slices.DeleteFunc(instances, func(instance string) bool {
		return slices.ContainsFunc(states, func(s receiver.State) bool { return s.Instance == instance && s.State == receiver.Standby })
	})
}

func silenceOf(instance string) string { return "silence " + instance }

// newReporter returns a reporter for this block's notifications.
func (h *Handler) newReporter() tell.Reporter {
	return tell.Reporter{
		Desk: h.app.operator.desk, Name: h.Name, Log: h.logger, DeskLog: h.app.logger, LogBody: h.LogBody,
		PerInstance: func(instance string) bool { return h.app.perInstance() && h.configured(instance) },
		Details:     h.alertDetails,
		Emitter:     h.emitter,
	}
}

// alertDetails returns what an alert about a notification says in addition, and whether to send one at all.
func (h *Handler) alertDetails(why reason.Reason, c *outcome.Case) (more string, wanted bool) {
	switch why {
	case reason.UnlistedSender:
		return h.IPFilter.lineToPaste(c.Client), true
	case reason.InstanceNotAllowed:
		return "", h.app.operator.daily.First(c.Instance(), time.Now())
	}
	return "", true
}

// emitter returns a function that emits an event through Caddy, nil if nobody has subscribed to it.
func (h *Handler) emitter(name string) func(map[string]any) {
	events := h.app.events
	if events == nil || !events.ShouldEmit(name) {
		return nil
	}
	return func(data map[string]any) {
		// A reload cancels a config's context, but the events of its last requests are still emitted.
		ctx := h.ctx
		ctx.Context = context.WithoutCancel(ctx.Context)
		events.Emit(ctx, name, data)
	}
}
