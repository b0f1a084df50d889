package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

func settingsSet(c Config) *cobra.Command {
	s := &settingChange{flags: &settingsFlags{Config: c}}
	cmd := &cobra.Command{
		Use:   "set [<instance>...]",
		Short: "Sets the settings that are about notifications",
		Long: `Sets webhookUrl (--url), webhookUrlToken (--token) and webhook switches (--switch, by the vendor's
names, or --all), and prints the differences. All other settings stay the same. If nothing differs,
nothing is set, because setting an instance's settings restarts it. With --url "" notifications stay in
the queue for the HTTP API.

Settings can take five minutes to take effect. With --wait the command waits until the API shows them.

The switches are the instance's own, such as incomingWebhook, outgoingWebhook and stateWebhook: every
setting printed by 'settings get' whose name ends in Webhook. If no instance has a given --switch, the
command sets nothing and lists the existing ones. If only some instances have it, it fails for the others.

With --format json it prints one object a line: instance; outcome, one of unchanged, dry_run, saved,
in_force and failed; changes, each with name, before and after; and error.

Exit status: 0 if all were set, 1 if some were not, 2 if the command was not understood.`,
		Example: `  caddy green-api settings set 1101000001 --url https://hooks.example.com/green-api/webhook \
      --token {env.GREEN_API_TOKEN} --all yes --switch deviceWebhook=no --wait
  caddy green-api settings set --instances instances.txt --url "" --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			clients, err := s.flags.clients(cmd, args)
			if err == nil {
				err = s.complete(cmd)
			}
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return s.run(ctx, cmd, clients)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.url, "url", "", `webhookUrl; "" for none`)
	flags.StringVar(&s.token, "token", "", `webhookUrlToken as in the console, {env.NAME} or {file./path}; "" for none`)
	flags.StringSliceVar(&s.switches, "switch", nil, "NAME=yes or NAME=no; may be repeated")
	flags.StringVar(&s.all, "all", "", "yes or no, for all the instance's webhook switches except those given by --switch")
	flags.BoolVar(&s.dryRun, "dry-run", false, "print what would change, and set nothing")
	flags.BoolVar(&s.wait, "wait", false, "wait until the settings have taken effect")
	flags.DurationVar(&s.waitTimeout, "wait-timeout", 10*time.Minute, "maximum time to wait")
	return s.flags.with(cmd)
}

// settingChange is what to set.
type settingChange struct {
	flags        *settingsFlags
	url, token   string
	switches     []string
	all          string
	dryRun, wait bool
	waitTimeout  time.Duration

	named vendorapi.Settings // without the switches of all
}

// complete checks what to set.
func (s *settingChange) complete(cmd *cobra.Command) error {
	s.named = make(vendorapi.Settings)
	if cmd.Flags().Changed("url") {
		if s.url != "" {
			if err := checkURL("--url", s.url); err != nil {
				return err
			}
		}
		s.named[vendorapi.WebhookURL] = s.url
	}
	if cmd.Flags().Changed("token") {
		secret, err := s.webhookToken()
		if err != nil {
			return fmt.Errorf("--token: %w", err)
		}
		s.named[vendorapi.WebhookURLToken] = secret
	}
	if err := s.parseSwitches(); err != nil {
		return err
	}
	if s.all != "" && s.all != "yes" && s.all != "no" {
		return fmt.Errorf("invalid --all %q; want yes or no", s.all)
	}
	if s.waitTimeout <= 0 {
		return fmt.Errorf("invalid --wait-timeout %s; want a duration above 0s", s.waitTimeout)
	}
	if len(s.named) == 0 && s.all == "" {
		return errors.New("nothing to set; want --url, --token, --switch or --all")
	}
	return nil
}

func (s *settingChange) parseSwitches() error {
	for _, text := range s.switches {
		name, value, _ := strings.Cut(text, "=")
		if value != "yes" && value != "no" {
			return fmt.Errorf("invalid --switch %q; want NAME=yes or NAME=no, such as incomingWebhook=yes", outcome.Clip(text))
		}
		if before, twice := s.named[name]; twice && before != value {
			return fmt.Errorf("--switch %s is both yes and no", name)
		}
		s.named[name] = value
	}
	return nil
}

// webhookToken returns the webhookUrlToken from the command line. Its errors never quote any part of it.
func (s *settingChange) webhookToken() (string, error) {
	if s.token == "" {
		return "", nil
	}
	if token.IsVariable(s.token) {
		return "", token.ErrDollar
	}
	secret, err := s.flags.Resolve(s.token)
	if err != nil {
		return "", err
	}
	secret = strings.TrimSpace(secret)
	if _, _, ok := token.Split(secret); !ok {
		return "", token.ErrForm
	}
	return secret, nil
}

// wanted returns the settings that an instance should have.
func (s *settingChange) wanted(current vendorapi.Settings) vendorapi.Settings {
	wanted := make(vendorapi.Settings)
	if s.all != "" {
		for _, name := range current.Switches() {
			wanted[name] = s.all
		}
	}
	maps.Copy(wanted, s.named)
	return wanted
}

// What became of an instance's settings. Programs rely on the names.
const (
	settingsUnchanged = "unchanged"
	settingsDryRun    = "dry_run"
	settingsSaved     = "saved"
	settingsInForce   = "in_force"
	settingsFailed    = "failed"
)

// settingsDone is set's JSON output.
type settingsDone struct {
	Instance string          `json:"instance"`
	Outcome  string          `json:"outcome"`
	Changes  []changedOption `json:"changes"`
	Error    string          `json:"error"`

	client  *vendorapi.Client
	current vendorapi.Settings // before the change
	wanted  vendorapi.Settings
	problem error // of the last check
	printed bool  // Changes, as text
}

type changedOption struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// run sets the settings of all instances, and then waits for all of them.
func (s *settingChange) run(ctx context.Context, cmd *cobra.Command, clients []*vendorapi.Client) error {
	var waiting []*settingsDone
	failed := false
	tell := func(done *settingsDone) error {
		failed = failed || done.Outcome == settingsFailed
		return s.print(cmd, done)
	}
	all := s.read(ctx, clients)
	if err := s.checkSwitches(all); err != nil {
		return usageError(cmd, err)
	}
	for _, done := range all {
		s.change(ctx, done)
		if done.Outcome == settingsSaved && s.wait {
			waiting = append(waiting, done)
			if s.flags.format == formatJSON {
				continue // printed at the end
			}
		}
		if err := tell(done); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.waitTimeout)
	defer cancel()
	if err := s.await(ctx, waiting, tell); err != nil {
		return err
	}
	if failed {
		return errFindings
	}
	return nil
}

// read gets the settings of all instances. An instance whose settings cannot be read fails.
func (s *settingChange) read(ctx context.Context, clients []*vendorapi.Client) (all []*settingsDone) {
	for _, client := range clients {
		done := &settingsDone{Instance: client.Instance, Changes: []changedOption{}, client: client}
		var err error
		if done.current, err = s.flags.currentSettings(ctx, client); err != nil {
			done.fail(err)
		}
		all = append(all, done)
	}
	return all
}

// checkSwitches refuses a switch that no instance has, as far as settings could be read.
func (s *settingChange) checkSwitches(all []*settingsDone) error {
	there := make(vendorapi.Settings)
	for _, done := range all {
		maps.Copy(there, done.current)
	}
	if len(there) == 0 {
		return nil // nothing could be read, and so nothing will be set
	}
	return s.unknownSwitch(there)
}

// unknownSwitch returns an error if an instance with these settings lacks one of the named switches.
func (s *settingChange) unknownSwitch(settings vendorapi.Settings) error {
	switches := settings.Switches()
	for _, text := range s.switches {
		if name, _, _ := strings.Cut(text, "="); !slices.Contains(switches, name) {
			return fmt.Errorf("unknown --switch %q; want one of %s", outcome.Clip(name), strings.Join(switches, ", "))
		}
	}
	return nil
}

// change sets an instance's settings that differ from the wanted ones.
func (s *settingChange) change(ctx context.Context, done *settingsDone) {
	if done.Outcome == settingsFailed {
		return
	}
	if err := s.unknownSwitch(done.current); err != nil {
		done.fail(err)
		return
	}
	current, wanted := done.current, s.wanted(done.current)
	done.wanted = make(vendorapi.Settings)
	for _, name := range current.Differing(wanted) {
		done.wanted[name] = wanted[name]
		done.Changes = append(done.Changes, changedOption{name, showable(name, current.Text(name)), showable(name, wanted.Text(name))})
	}
	switch {
	case len(done.Changes) == 0:
		done.Outcome = settingsUnchanged
	case s.dryRun:
		done.Outcome = settingsDryRun
	default:
		done.Outcome = settingsSaved
		if err := s.flags.insist(ctx, func() error { return done.client.SetSettings(ctx, done.wanted) }); err != nil {
			done.fail(err)
		}
	}
}

// fail records why it failed. The API may quote what it refuses, so secrets are removed.
func (d *settingsDone) fail(err error) *settingsDone {
	d.Outcome, d.Error = settingsFailed, vendorapi.RedactURLIn(err.Error(), d.wanted.Text(vendorapi.WebhookURL))
	if _, secret, ok := token.Split(d.wanted.Text(vendorapi.WebhookURLToken)); ok {
		d.Error = strings.ReplaceAll(d.Error, secret, notShown)
	}
	return d
}

// await gets the settings of each instance, at most once a second, until they are as wanted.
func (s *settingChange) await(ctx context.Context, waiting []*settingsDone, tell func(*settingsDone) error) error {
	for len(waiting) > 0 && s.flags.Pause(ctx, pace) {
		var left []*settingsDone
		for _, done := range waiting {
			s.look(ctx, done)
			if done.Outcome == settingsSaved {
				left = append(left, done)
				continue
			}
			if err := tell(done); err != nil {
				return err
			}
		}
		waiting = left
	}
	for _, done := range waiting {
		if err := tell(done.fail(s.missed(ctx, done.problem))); err != nil {
			return err
		}
	}
	return nil
}

// missed returns the error for settings that have not taken effect, with the last problem of asking, if any.
func (s *settingChange) missed(ctx context.Context, problem error) error {
	err := fmt.Errorf("saved, but not in force after %s", s.waitTimeout)
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.New("saved; told to stop before they were in force")
	}
	if problem != nil {
		err = fmt.Errorf("%w: %w", err, problem)
	}
	return err
}

// look checks whether the saved settings are in effect. An error may go away, unless the API refuses the
// call as such.
func (s *settingChange) look(ctx context.Context, d *settingsDone) {
	current, err := d.client.GetSettings(ctx)
	if ctx.Err() != nil {
		return
	}
	d.problem = err
	var e *vendorapi.Error
	switch {
	case err == nil:
		if len(current.Differing(d.wanted)) == 0 {
			d.Outcome = settingsInForce
		}
	case errors.Is(err, vendorapi.ErrUnauthorized), errors.Is(err, vendorapi.ErrForbidden), errors.Is(err, vendorapi.ErrInvalid):
		d.fail(err)
	case errors.As(err, &e) && e.RetryAfter > 0:
		s.flags.Pause(ctx, min(e.RetryAfter, longestRetryAfter))
	}
}

// print prints what became of an instance's settings.
func (s *settingChange) print(cmd *cobra.Command, done *settingsDone) error {
	out := cmd.OutOrStdout()
	if s.flags.format == formatJSON {
		return json.NewEncoder(outcome.JSONWriter{To: out}).Encode(done)
	}
	for _, change := range done.Changes {
		if done.printed {
			break
		}
		after := quoted(change.After)
		if change.Before == change.After {
			after += " (another)"
		}
		fmt.Fprintf(out, "%s  %s: %s -> %s\n", done.Instance, outcome.Printable(change.Name), quoted(change.Before), after)
	}
	done.printed = true
	if done.Outcome == settingsFailed {
		return sayFailed(cmd, done.Instance, errors.New(done.Error))
	}
	_, err := io.WriteString(out, done.Instance+"  "+map[string]string{
		settingsUnchanged: "nothing differs, so nothing is set",
		settingsDryRun:    "dry run, so nothing is set",
		settingsSaved:     "saved; the instance restarts, and it can take five minutes until the settings are in force",
		settingsInForce:   "in force",
	}[done.Outcome]+"\n")
	return err
}

// quoted returns the value of a setting for a line of text.
func quoted(value string) string {
	if value == "" {
		return `""`
	}
	return outcome.Printable(value)
}
