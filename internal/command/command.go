// Package command has the commands `caddy green-api …`: one file each.
package command

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Config is what the commands need of the plugin.
type Config struct {
	// Resolve replaces the placeholders of a secret, such as {env.NAME}.
	Resolve func(string) (string, error)

	// Examine provisions a config, in JSON, without starting it, and returns what the doctor has to know of it.
	Examine func(config []byte) (doctor.Config, error)

	// Machine looks at the machine that an edge runs on with a config file. Default: this one.
	Machine func(file string) doctor.Machine

	// Pace is the pause between two calls of the same method of GREEN-API's HTTP API for one instance.
	// Default: the vendor's limit, a second.
	Pace time.Duration
}

// New returns the command `caddy green-api`, which has all others below it.
func New(c Config) caddycmd.Command {
	c.Pace = cmp.Or(c.Pace, time.Second)
	if c.Machine == nil {
		c.Machine = doctor.Look
	}
	return caddycmd.Command{
		Name:  "green-api",
		Usage: "<command>",
		Short: "Tools for GREEN-API webhooks",
		Long: `Tools for GREEN-API webhooks: a demo, a sender and a handler to try things out, what would become of a
notification, what is kept of those that are broken, whether a running edge is ready, and what
notifications are judged by. Each command has a --help of its own.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = usageArgs(cobra.NoArgs)
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.SetFlagErrorFunc(usageError) // the commands below inherit it
			for _, sub := range []*cobra.Command{checkCommand(), sendCommand(), listenCommand(), quarantineCommand(), settingsCommand(c), schemasCommand(), addressesCommand(), doctorCommand(c), healthCommand(), demoCommand(), alertCommand()} {
				sub.Args = usageArgs(sub.Args)
				sub.SilenceErrors = true // the commands print their errors themselves
				cmd.AddCommand(sub)
			}
		},
	}
}

// Exit codes of the commands, beside 0.
const (
	exitFindings = 1
	exitUsage    = 2
)

// errFindings ends a command with exit code 1. The command has printed what it found.
var errFindings = errors.New("findings")

// usageError says why a command cannot go on, and ends it with exit code 2.
func usageError(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\nsee '%s --help'\n", cmd.CommandPath(), outcome.PrintableLines(err.Error()), cmd.CommandPath())
	return exit(cmd, exitUsage)
}

// exit returns the error that makes Caddy's main end with a code above 1.
func exit(cmd *cobra.Command, code int) error {
	cmd.SilenceErrors = true
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

// usageArgs turns the error of wrong arguments into a usage error.
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
