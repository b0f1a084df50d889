package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func alertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alert",
		Short: "Tests the alerts of a running edge",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	test := alertTest()
	test.Args = usageArgs(test.Args)
	test.SilenceErrors = true
	cmd.AddCommand(test)
	return cmd
}

// alertPatience limits how long an alert test may take. The edge gives each endpoint 10 seconds, and sends
// to all of them at once.
const alertPatience = 20 * time.Second

func alertTest() *cobra.Command {
	a := new(adminFlags)
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Sends a test alert through each alert of a running edge",
		Long: `Makes a running server send a test alert through each alert in its config, at once and regardless of
alerts sent before, and prints the result of each. The test alert has the reason test, the level warn
and a text that says that it is a test.

The command finds the admin API as 'caddy reload' does: by --address, by the admin option of --config,
or at localhost:2019. With --format json it prints one object a line: alert, a number from 1 in the
order of the config; endpoint, its host; and error, which is empty if the endpoint answered 2xx.

Exit status: 0 if all endpoints took the alert, 1 if some did not or the config has no alert, 2 if the
command was not understood or the server could not be reached.`,
		Example: `  caddy green-api alert test
  caddy green-api alert test --address unix//run/caddy/admin.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := a.find()
			if err != nil {
				return usageError(cmd, err)
			}
			tests, err := within(alertPatience, func() ([]api.AlertTest, error) { return askAlertTest(address) })
			if err != nil {
				return noAnswer(cmd, address, err)
			}
			return printAlertTests(cmd, a.format, tests)
		},
	}
	return a.with(cmd)
}

// askAlertTest makes the server behind an admin API send the test alerts.
func askAlertTest(address string) (tests []api.AlertTest, err error) {
	response, err := askAdmin(address, http.MethodPost, "alert/test", nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(response.Body); ; {
		var test api.AlertTest
		switch err := lines.Decode(&test); {
		case errors.Is(err, io.EOF):
			return tests, nil
		case err != nil || test.Alert == 0:
			return nil, errors.New("its answer says nothing of alerts, or broke off")
		}
		tests = append(tests, test)
	}
}

// printAlertTests prints the results of the test alerts, and returns the command's error.
func printAlertTests(cmd *cobra.Command, format string, tests []api.AlertTest) error {
	out := cmd.OutOrStdout()
	failed := false
	for _, test := range tests {
		said := "taken"
		if test.Error != "" {
			failed, said = true, "not taken: "+test.Error
		}
		if format == formatJSON {
			if err := json.NewEncoder(outcome.JSONWriter{To: out}).Encode(test); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "alert %d  %s  %s\n", test.Alert, outcome.Printable(test.Endpoint), outcome.Printable(said))
	}
	if len(tests) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: the config that runs has no alert in it, so nobody is told of what goes wrong\n", cmd.CommandPath())
	}
	if failed || len(tests) == 0 {
		return errFindings
	}
	return nil
}
