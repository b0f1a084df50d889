package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// unreachable is the reason of an edge whose admin API does not answer.
const unreachable api.Unready = "unreachable"

func healthCommand() *cobra.Command {
	a := new(adminFlags)
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Checks whether a running edge is ready",
		Long: `Asks a running server whether it is ready for notifications: its config has started, the
quarantine is open, and it is not about to exit. It also prints the fingerprint of the config in
effect, and since when it has been in effect. After a reload, the time shows whether the reload took
effect, and the fingerprint whether anything about green_api has changed. The fingerprint is the
SHA-256 of the global option green_api and of all green_api blocks as they were loaded; it does not
include the files that they name.

The command finds the admin API as 'caddy reload' does: by --address, by the admin option of --config,
or at localhost:2019. The admin API serves the same at /green_api/health, with status 200 or 503.

It prints one line, or with --format json an object: ready; reasons, a list of not_configured,
starting, quarantine_closed, queue_draining, ending and unreachable, which is empty if the edge is
ready; config, the fingerprint; and loaded, a time.

Exit status: 0 if it is ready, 1 if it is not or does not answer within 5 seconds, 2 if the command
was not understood.`,
		Example: `  caddy green-api health
  caddy green-api health --address unix//run/caddy/admin.sock --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := a.find()
			if err != nil {
				return usageError(cmd, err)
			}
			health, err := within(adminPatience, func() (api.Health, error) { return askHealth(address) })
			if err != nil {
				err = notThere(cmd, address, err)
				health = api.Health{Reasons: []api.Unready{unreachable}}
			}
			if err := printHealth(cmd, a.format, health, err); err != nil {
				return err
			}
			if !health.Ready {
				return errFindings
			}
			return nil
		},
	}
	return a.with(cmd)
}

// askHealth asks the admin API at an address.
func askHealth(address string) (health api.Health, err error) {
	response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, api.HealthPath, make(http.Header), nil)
	var answer io.Reader
	switch err {
	case nil:
		defer response.Body.Close()
		answer = io.LimitReader(response.Body, 1<<20)
	default:
		said := refusedByAdmin.FindStringSubmatch(err.Error())
		if said == nil {
			return health, err
		}
		answer = strings.NewReader(said[2])
	}
	if err := json.NewDecoder(answer).Decode(&health); err != nil || health.Reasons == nil {
		return api.Health{}, errors.New("its answer says nothing of health, so it is no admin API of a Caddy with green_api")
	}
	return health, nil
}

// printHealth prints the health. problem is the error of asking for it.
func printHealth(cmd *cobra.Command, format string, h api.Health, problem error) error {
	if format == formatJSON {
		if problem != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), outcome.Printable(problem.Error()))
		}
		return json.NewEncoder(outcome.JSONWriter{To: cmd.OutOrStdout()}).Encode(h)
	}
	line := "ready"
	if !h.Ready {
		reasons := make([]string, len(h.Reasons))
		for i, why := range h.Reasons {
			reasons[i] = string(why)
		}
		line = "not ready: " + strings.Join(reasons, ", ")
	}
	if problem != nil {
		line += ": " + problem.Error()
	}
	if h.Config != "" {
		line += "; config " + h.Config
	}
	if h.Loaded != "" {
		line += " since " + h.Loaded
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), outcome.Printable(line))
	return err
}
