// Package command has the commands `caddy green-api …`: one file each.
package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Config is what the commands need from the plugin.
type Config struct {
	// Resolve replaces the placeholders of a secret, such as {env.NAME}.
	Resolve func(string) (string, error)

	// Examine provisions a JSON config without starting it, and returns what the doctor needs to know about it.
	Examine func(config []byte) (doctor.Config, error)

	// Machine looks at the machine that an edge runs on with a config file. Default: this one.
	Machine func(file string) doctor.Machine

	// Pause waits before another call of GREEN-API's HTTP API, and reports whether ctx is still alive.
	// Default: for as long as it is told to.
	Pause func(ctx context.Context, d time.Duration) bool
}

// New returns the command `caddy green-api` with all its subcommands.
func New(c Config) caddycmd.Command {
	if c.Pause == nil {
		c.Pause = pauseFor
	}
	if c.Machine == nil {
		c.Machine = doctor.Look
	}
	return caddycmd.Command{
		Name:  "green-api",
		Usage: "<command>",
		Short: "Tools for GREEN-API webhooks",
		Long: `Tools for GREEN-API webhooks: a demo, a sender and a handler for trying things out, checks of single
notifications and of a running edge, the quarantine of broken notifications, the queue of those on their
way, and the schemas that notifications are checked against. Each command has a --help of its own.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = usageArgs(cobra.NoArgs)
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.SetFlagErrorFunc(usageError) // subcommands inherit it
			for _, sub := range []*cobra.Command{consoleCommand(), topCommand(), checkCommand(), sendCommand(), listenCommand(), quarantineCommand(), queueCommand(), settingsCommand(c), schemasCommand(), addressesCommand(), doctorCommand(c), healthCommand(), demoCommand(), alertCommand()} {
				sub.Args = usageArgs(sub.Args)
				sub.SilenceErrors = true // the commands print their errors themselves
				cmd.AddCommand(sub)
			}
		},
	}
}

// Exit codes of the commands, other than 0.
const (
	exitFindings = 1
	exitUsage    = 2
)

// errFindings ends a command with exit code 1. The command has printed what it found.
var errFindings = errors.New("findings")

// usageError returns the error that ends a command with exit code 2 and says why.
func usageError(cmd *cobra.Command, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\nsee '%s --help'\n", cmd.CommandPath(), outcome.PrintableLines(err.Error()), cmd.CommandPath())
	return exit(cmd)
}

// exit returns the error that makes Caddy's main end with exitUsage, as it does with codes above 1.
func exit(cmd *cobra.Command) error {
	cmd.SilenceErrors = true
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exitUsage, nil })(cmd, nil)
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
