package command

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

func settingsCommand(c Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Reads, sets and verifies where instances send notifications, and which ones",
		Long: `Reads and sets an instance's webhookUrl, webhookUrlToken and webhook switches, by GREEN-API's
getSettings and setSettings, and verifies that they fit a running edge.

Name an instance by its id (idInstance). Its API token (apiTokenInstance) is read from the variable
` + apiTokenVariable + `. For several instances, --instances names a file with an id and an API
token on each line, and the API's URL if it is not the default; # begins a comment. A token may also be
{env.NAME} or {file./path}. API tokens are never printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{settingsGet(c), settingsSet(c), settingsVerify(c)} {
		sub.SilenceErrors = true
		cmd.AddCommand(sub)
	}
	return cmd
}

func settingsGet(c Config) *cobra.Command {
	s := &settingsFlags{Config: c}
	showSecrets := false
	cmd := &cobra.Command{
		Use:   "get [<instance>...]",
		Short: "Prints the settings that are about notifications",
		Long: `Prints webhookUrl, webhookUrlToken and the webhook switches: every setting of the instance whose name
ends in Webhook and whose value is yes or no. REDACTED replaces the token and, in the URL, user and
password, query values and the fragment; --show-secrets prints them. With --format json it prints one
object a line: instance, settings, and error, which is empty if there is none.

Exit status: 0 if all could be read, 1 if some could not, 2 if the command was not understood.`,
		Example: `  ` + apiTokenVariable + `=… caddy green-api settings get 1101000001
  caddy green-api settings get --instances instances.txt --format json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			clients, err := s.clients(cmd, args)
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			failed := false
			for _, client := range clients {
				settings, err := s.currentSettings(ctx, client)
				failed = failed || err != nil
				if err := s.printSettings(cmd, client.Instance, settings, showSecrets, err); err != nil {
					return err
				}
			}
			if failed {
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&showSecrets, "show-secrets", false, "print webhookUrl and webhookUrlToken unredacted")
	return s.with(cmd)
}

// currentSettings returns the settings of an instance that are in effect.
func (s *settingsFlags) currentSettings(ctx context.Context, client *vendorapi.Client) (settings vendorapi.Settings, err error) {
	err = s.insist(ctx, func() error {
		settings, err = client.GetSettings(ctx)
		return err
	})
	return settings, err
}

// printSettings prints an instance's settings for notifications.
func (s *settingsFlags) printSettings(cmd *cobra.Command, instance string, settings vendorapi.Settings, secrets bool, problem error) error {
	shown := make(map[string]string)
	names := aboutNotifications(settings)
	for _, name := range names {
		shown[name] = settings.Text(name)
		if !secrets {
			shown[name] = showable(name, shown[name])
		}
	}
	out := cmd.OutOrStdout()
	switch {
	case s.format == formatJSON:
		return json.NewEncoder(outcome.JSONWriter{To: out}).Encode(settingsGot{Instance: instance, Settings: shown, Error: textOf(problem)})
	case problem != nil:
		return sayFailed(cmd, instance, problem)
	}
	fmt.Fprintln(out, instance)
	for _, name := range names {
		if _, err := fmt.Fprintf(out, "    %-25s  %s\n", outcome.Printable(name), quoted(shown[name])); err != nil {
			return err
		}
	}
	return nil
}

// settingsGot is get's JSON output.
type settingsGot struct {
	Instance string            `json:"instance"`
	Settings map[string]string `json:"settings"`
	Error    string            `json:"error"`
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func sayFailed(cmd *cobra.Command, instance string, problem error) error {
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s: instance %s: %s\n", cmd.CommandPath(), instance, outcome.Printable(problem.Error()))
	return err
}

// aboutNotifications returns the names of the settings for notifications: the URL, its token and the
// switches.
func aboutNotifications(settings vendorapi.Settings) (names []string) {
	for _, name := range []string{vendorapi.WebhookURL, vendorapi.WebhookURLToken} {
		if _, there := settings[name]; there {
			names = append(names, name)
		}
	}
	return append(names, settings.Switches()...)
}

const notShown = "REDACTED"

// showable returns the value of a setting without its secrets.
func showable(name, value string) string {
	switch {
	case name == vendorapi.WebhookURLToken && value != "":
		return notShown
	case name == vendorapi.WebhookURL:
		return vendorapi.RedactURL(value)
	}
	return value
}
