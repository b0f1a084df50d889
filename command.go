package greenapi

import (
	"errors"
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "green-api",
		Usage: "<command>",
		Short: "Tools for GREEN-API webhooks",
		Long: `Tools for GREEN-API webhooks: a sender and a handler to try things out, what would become of a
notification, what is kept of those that are broken, and what notifications are judged by. Each command has a --help of its own.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = usageArgs(cobra.NoArgs)
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.SetFlagErrorFunc(usageError) // the commands below inherit it
			for _, sub := range []*cobra.Command{checkCommand(), sendCommand(), listenCommand(), quarantineCommand(), settingsCommand(), schemasCommand(), addressesCommand()} {
				sub.Args = usageArgs(sub.Args)
				sub.SilenceErrors = true // said by the commands themselves
				cmd.AddCommand(sub)
			}
		},
	})
}

// Exit codes of the commands, beside 0.
const (
	exitFindings = 1
	exitUsage    = 2
)

// errFindings ends a command with exit code 1. What was found has been printed.
var errFindings = errors.New("findings")

// usageError ends a command with exit code 2, having said why.
func usageError(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\nsee '%s --help'\n", cmd.CommandPath(), outcome.PrintableLines(err.Error()), cmd.CommandPath())
	return exit(cmd, exitUsage)
}

// exit is the error by which Caddy's main ends with that code, above 1.
func exit(cmd *cobra.Command, code int) error {
	cmd.SilenceErrors = true
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

// usageArgs makes a usage error of wrong arguments.
func usageArgs(want cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if want == nil {
			return nil
		}
		if err := want(cmd, args); err != nil {
			return usageError(cmd, err)
		}
		return nil
	}
}
