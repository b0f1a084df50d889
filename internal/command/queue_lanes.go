package command

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
)

func queueRetry() *cobra.Command {
	q := new(queueFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "retry [<lane>]",
		Short: "Delivers at once what waits for its next round",
		Long: `Lets one lane, or all lanes of a green_api block or an instance, try at once to deliver what waits for
its next round. Requires a lane, --name, --instance, or --all. What is paused or has no handler is left
as it is, and counted.

Exit status: 0 if it was ordered, 1 if no lane has the id, or it is paused or has no handler, 2 if the
command was not understood, the server could not be reached, or there is no queue.`,
		Example: `  caddy green-api queue retry 3f2a9c01b7de
  caddy green-api queue retry --all`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := q.target(cmd)
			switch {
			case err != nil:
				return err
			case len(args) == 1 && args[0] == "":
				return usageError(cmd, errEmptyLane)
			case len(args)+len(query) == 0 && !all:
				return usageError(cmd, errors.New("nothing said of what to retry; want a lane, --name, --instance, or --all"))
			case len(args) == 1:
				query.Set("lane", args[0])
			}
			if all {
				query.Set("all", "true")
			}
			_, err = order(cmd, q, "queue/retry", query, func(done api.QueueDone) string {
				return retriedText(&done) + "\n"
			})
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "retry everything that waits")
	return q.targeted(cmd)
}

// retriedText says how many lanes were retried, and which were not.
func retriedText(done *api.QueueDone) string {
	text := countOf(number(done.Lanes), "lane") + " retried"
	var left []string
	if done.Paused > 0 {
		left = append(left, fmt.Sprintf("%d paused", done.Paused))
	}
	if done.NoHandler > 0 {
		left = append(left, fmt.Sprintf("%d without a handler", done.NoHandler))
	}
	if len(left) > 0 {
		text += "; left as they are: " + strings.Join(left, ", ")
	}
	return text
}

func queueSkip() *cobra.Command {
	q := new(queueFlags)
	var seq uint64
	cmd := &cobra.Command{
		Use:   "skip <lane>",
		Short: "Puts the first notification of a lane into the quarantine",
		Long: `Puts the first notification of a lane into the quarantine, with the reason skipped, so that the lane
goes on with the next one. 'caddy green-api quarantine' shows, replays and deletes it. With --seq, it must be
the one that 'queue show' showed: the lane may have gone on since.

Exit status: 0 if it was skipped, 1 if no lane has the id, or the notification is being delivered or is
another one, 2 if the command was not understood, the server could not be reached, there is no queue, or
the quarantine cannot keep it.`,
		Example: `  caddy green-api queue show 3f2a9c01b7de --limit 1
  caddy green-api queue skip 3f2a9c01b7de --seq 4711`,
		Args: wantLane,
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"lane": args}
			if seq != 0 {
				query.Set("seq", strconv.FormatUint(seq, 10))
			}
			_, err := order(cmd, q, "queue/skip", query, func(done api.QueueDone) string {
				return countOf(number(done.Entries), "notification") + " skipped; 'caddy green-api quarantine list --reason skipped' shows it\n"
			})
			return err
		},
	}
	cmd.Flags().Uint64Var(&seq, "seq", 0, "skip only this entry, as 'queue show' shows it")
	return q.with(cmd)
}

func queueMove() *cobra.Command {
	q := new(queueFlags)
	var from, to string
	cmd := &cobra.Command{
		Use:   "move --from <name> --to <name>",
		Short: "Hands the notifications of a block that is gone to another one",
		Long: `Hands the notifications of a green_api block that the config no longer has to another one, which
delivers them in the order in which they came.

Exit status: 0 if they were moved, 1 if it cannot be done as things are now, 2 if the command was not
understood, the config does not have the second block or still has the first one, the server could not
be reached, or there is no queue.`,
		Example: `  caddy green-api queue move --from old-site --to sales`,
		Args:    noLane,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := givenFlags(cmd, map[string]string{"from": from, api.OptionTo: to})
			switch {
			case err != nil:
				return err
			case len(query) < 2:
				return usageError(cmd, errors.New("nothing said of what to move; want --from and --to"))
			}
			_, err = order(cmd, q, "queue/move", query, func(done api.QueueDone) string {
				return countOf(number(done.Entries), "notification") + " moved\n"
			})
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "name of the green_api block that is gone")
	cmd.Flags().StringVar(&to, api.OptionTo, "", "name of the green_api block that is to deliver")
	return q.with(cmd)
}
