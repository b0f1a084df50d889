package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

func settingsVerify(c Config) *cobra.Command {
	s := &settingsFlags{Config: c}
	a := new(adminFlags)
	cmd := &cobra.Command{
		Use:   "verify [<instance>...]",
		Short: "Verifies that the settings fit a running edge",
		Long: `Reads webhookUrl and webhookUrlToken of each instance, and asks a running server whether they fit its
config: would a notification to that URL reach a green_api block, and would the block's auth let in
this instance with this token? Nothing is sent to the URL, so DNS, port, certificate and firewalls are
not checked. Tokens, and what may be secret in a URL, are not printed.

The command finds the admin API as 'caddy reload' does: by --address, by the admin option of --config,
or at localhost:2019. With --format json it prints one object a line: instance; block, the name of the
block that its notifications reach; findings, of no_url, bad_url, http_url, no_block, received, no_token,
bad_token and instance_not_allowed; and error, which is empty if the settings could be read.

Exit status: 0 if all fit, 1 if some do not or could not be read, 2 if the command was not understood
or the server could not be reached.`,
		Example: `  ` + apiTokenVariable + `=… caddy green-api settings verify 1101000001
  caddy green-api settings verify --instances instances.txt --address unix//run/caddy/admin.sock`,
		RunE: func(cmd *cobra.Command, args []string) error {
			clients, err := s.clients(cmd, args)
			if err != nil {
				return usageError(cmd, err)
			}
			a.format = s.format
			address, err := a.find()
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			unfit := false
			for _, client := range clients {
				settings, problem := s.currentSettings(ctx, client)
				verified := settingsVerified{Fit: api.Fit{Instance: client.Instance, Findings: []api.Unfit{}}, Error: textOf(problem), url: settings.Text(vendorapi.WebhookURL)}
				if problem == nil {
					if verified.Fit, err = within(adminPatience, func() (api.Fit, error) { return askFit(address, client.Instance, settings) }); err != nil {
						return noAnswer(cmd, address, err)
					}
				}
				unfit = unfit || problem != nil || len(verified.Findings) > 0
				if err := verified.print(cmd, s.format); err != nil {
					return err
				}
			}
			if unfit {
				return errFindings
			}
			return nil
		},
	}
	return a.located(s.with(cmd))
}

// askFit asks the server behind an admin API whether settings fit its config.
func askFit(address, instance string, settings vendorapi.Settings) (fit api.Fit, err error) {
	body := url.Values{"instance": {instance}, "url": {settings.Text(vendorapi.WebhookURL)}, "token": {settings.Text(vendorapi.WebhookURLToken)}}
	response, err := askAdmin(address, http.MethodPost, "fit", strings.NewReader(body.Encode()))
	if err != nil {
		return fit, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&fit); err != nil || fit.Findings == nil {
		return fit, errors.New("its answer does not say whether the settings fit")
	}
	return fit, nil
}

// settingsVerified is verify's JSON output.
type settingsVerified struct {
	api.Fit
	Error string `json:"error"`

	url string
}

// unfitSays explains each finding and what to do.
var unfitSays = map[api.Unfit]string{
	api.NoURL:                            "webhookUrl is empty, so its notifications are not sent; set it, or have the edge 'receive' the instance",
	api.BadURL:                           "webhookUrl is no URL; want one that begins with https:// and a host",
	api.HTTPURL:                          "webhookUrl begins with http://, so its token and its messages can be read on the way; want https://",
	api.NoBlock:                          "no green_api block of the config is reached by webhookUrl; compare its host and path with the sites of the config",
	api.Received:                         "the edge receives it from the HTTP API, which has nothing for it as long as a webhookUrl is set; set that to \"\"",
	api.Unfit(reason.NoToken):            "webhookUrlToken is empty, and the block's auth wants one",
	api.Unfit(reason.BadToken):           "webhookUrlToken is none of the tokens of the block's auth",
	api.Unfit(reason.InstanceNotAllowed): "webhookUrlToken is right for other instances, and the block's auth does not let in this one with it",
}

// print prints whether an instance's settings fit.
func (v *settingsVerified) print(cmd *cobra.Command, format string) error {
	out := cmd.OutOrStdout()
	switch {
	case format == formatJSON:
		return json.NewEncoder(outcome.JSONWriter{To: out}).Encode(v)
	case v.Error != "":
		return sayFailed(cmd, v.Instance, errors.New(v.Error))
	case len(v.Findings) == 0:
		fmt.Fprintf(out, "%s  fits, by block %s\n", v.Instance, outcome.Printable(v.Block))
		return nil
	}
	for _, found := range v.Findings {
		says := string(found) + ": " + unfitSays[found]
		if v.url != "" {
			says += " (" + quoted(vendorapi.RedactURL(v.url)) + ")"
		}
		fmt.Fprintf(out, "%s  %s\n", v.Instance, outcome.Printable(says))
	}
	return nil
}
