package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func queueDrain() *cobra.Command {
	q := new(queueFlags)
	var off, noWait bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Lets the queue become empty",
		Long: `Lets the queue take nothing in: what comes is answered 503, and stays with its sender. What it holds is
delivered, and the command waits until it is empty. The queue goes on refusing after that, and after a
restart, until 'drain --off' or 'resume' without a name or an instance. Interrupting the command does
not end draining.

Exit status: 0 if the queue is empty, or with --off and --no-wait if it was ordered; 1 if it is not
empty after --wait-timeout, or somebody has ended draining; 2 if the command was not understood, the
server could not be reached, or there is no queue.`,
		Example: `  caddy green-api queue drain
  caddy green-api queue drain --wait-timeout 10m
  caddy green-api queue drain --off`,
		Args: noLane,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case patience < 0:
				return usageError(cmd, fmt.Errorf("invalid --wait-timeout %s; want 0s or more", patience))
			case off && (noWait || patience > 0):
				return usageError(cmd, errors.New("with --off there is nothing to wait for"))
			}
			query := make(url.Values)
			if off {
				query.Set("off", "true")
			}
			if off || noWait {
				_, err := order(cmd, q, "queue/drain", query, ordersOf)
				return err
			}
			return q.drain(cmd, patience)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&off, "off", false, "let the queue take in again")
	flags.BoolVar(&noWait, "no-wait", false, "do not wait until the queue is empty")
	flags.DurationVar(&patience, "wait-timeout", 0, "maximum time to wait; 0 is no limit")
	return q.with(cmd)
}

// lookEvery is the time between two looks at a queue that is being drained.
const lookEvery = time.Second

// drain lets the queue drain, and waits until it is empty.
func (q *queueFlags) drain(cmd *cobra.Command, patience time.Duration) error {
	var state api.QueueState
	var last []byte
	look := func(method, path string) error {
		return q.ask(cmd, method, path, nil, func(line []byte) error {
			last = line
			return json.Unmarshal(line, &state)
		})
	}
	if err := look(http.MethodPost, "queue/drain"); err != nil {
		return err
	}
	out, terminal := terminalOf(cmd.ErrOrStderr())
	for _, p := range state.Paused {
		fmt.Fprintf(out, "%s is paused, and is not delivered\n", outcome.Printable(targetText(p.Block, p.Instance)))
	}
	began := time.Now()
	for state.Draining && state.Entries > 0 && (patience == 0 || time.Since(began) < patience) {
		if terminal {
			fmt.Fprintf(out, "\r\x1b[K%s left, %d under way", countOf(state.Entries, "notification"), state.InFlight)
		}
		time.Sleep(lookEvery)
		if err := look(http.MethodGet, "queue/state"); err != nil {
			return err
		}
	}
	if terminal {
		fmt.Fprint(out, "\r\x1b[K")
	}
	if q.format == formatJSON {
		if _, err := cmd.OutOrStdout().Write(last); err != nil {
			return err
		}
	}
	switch {
	case !state.Draining:
		fmt.Fprintln(out, "somebody has ended draining")
	case state.Entries > 0:
		fmt.Fprintf(out, "%s left after %s; the queue is still being drained\n", countOf(state.Entries, "notification"), round(time.Since(began)))
	default:
		if q.format == formatText {
			fmt.Fprintln(cmd.OutOrStdout(), "the queue is empty")
		}
		return nil
	}
	return errFindings
}
