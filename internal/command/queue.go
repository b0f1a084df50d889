package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// queueFlags are the flags that the queue commands share.
type queueFlags struct {
	adminFlags
	name, instance string
}

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Shows what waits in the queue, and gives it orders",
		Long: `Shows what a running server has in its queue, and gives it orders, through Caddy's admin API. It finds
that as 'caddy reload' does: by --address, by the admin option of --config, or at localhost:2019.

The queue has a lane for each instance, or for each chat. A lane is delivered in order, one notification
at a time; lanes do not wait for each other. A name or an instance without a value is refused, so that
an unset variable does not mean everything.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{queueList(), queueShow(), queuePause(), queueResume(), queueRetry(), queueSkip(), queueDrain(), queueMove()} {
		sub.Args = usageArgs(sub.Args)
		sub.SilenceErrors = true
		cmd.AddCommand(sub)
	}
	cmd.Args = cobra.NoArgs
	return cmd
}

// targeted adds the flags that say what a command is about.
func (q *queueFlags) targeted(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&q.name, "name", "", "name of the green_api block")
	cmd.Flags().StringVar(&q.instance, "instance", "", "idInstance")
	return q.with(cmd)
}

// target returns the parameters that say what a command is about.
func (q *queueFlags) target(cmd *cobra.Command) (url.Values, error) {
	return givenFlags(cmd, map[string]string{"name": q.name, "instance": q.instance})
}

// targetOrAll is target for a command that is about everything without any of the flags, or with --all.
func (q *queueFlags) targetOrAll(cmd *cobra.Command, all bool) (url.Values, error) {
	query, err := q.target(cmd)
	if err == nil && all && len(query) > 0 {
		err = usageError(cmd, errors.New("--all and --name or --instance say different things; want one of them"))
	}
	return query, err
}

// givenFlags returns the flags that are set as parameters. An empty one is an error.
func givenFlags(cmd *cobra.Command, flags map[string]string) (url.Values, error) {
	query := make(url.Values)
	for name, value := range flags {
		switch {
		case value != "":
			query.Set(name, value)
		case cmd.Flags().Changed(name):
			return nil, usageError(cmd, fmt.Errorf("--%s: %w", name, api.ErrEmptyValue))
		}
	}
	return query, nil
}

// order makes a request whose answer is one line, and prints that, or what text returns of it.
func order[T any](cmd *cobra.Command, q *queueFlags, path string, query url.Values, text func(T) string) (said T, err error) {
	err = q.ask(cmd, http.MethodPost, path, query, func(line []byte) error {
		if err := json.Unmarshal(line, &said); err != nil {
			return fmt.Errorf("the admin API says %q", line)
		}
		if q.format == formatJSON {
			_, err := cmd.OutOrStdout().Write(line)
			return err
		}
		_, err := fmt.Fprint(cmd.OutOrStdout(), outcome.PrintableLines(text(said)))
		return err
	})
	return said, err
}

var errEmptyLane = errors.New("the lane is empty; want one as list prints it")

func wantLane(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("want one lane, as list prints it")
	}
	if args[0] == "" {
		return errEmptyLane
	}
	return nil
}

// noLane refuses arguments: they are probably lanes, which these commands do not take.
func noLane(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("want flags such as --name or --instance, and no lane; 'caddy green-api queue show LANE' shows one")
	}
	return nil
}

// number returns a number that an answer need not have.
func number(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

// countOf says how many there are of what can be counted.
func countOf(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
