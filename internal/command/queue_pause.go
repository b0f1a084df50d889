package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func queuePause() *cobra.Command {
	q := new(queueFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Lets notifications wait in the queue",
		Long: `Lets the notifications of a green_api block, of an instance, or of both wait in the queue; without
--name and --instance, all of them. What comes is stored all the same. Deliveries that are under way go
on. A pause survives a restart, and max_age goes on.

Exit status: 0 if it is paused, 2 if the command was not understood, the server could not be reached, or
there is no queue.`,
		Example: `  caddy green-api queue pause
  caddy green-api queue pause --name sales --instance 1101000001`,
		Args: noLane,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := q.targetOrAll(cmd, all)
			if err != nil {
				return err
			}
			_, err = order(cmd, q, "queue/pause", query, ordersOf)
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "pause everything, as without --name and --instance")
	return q.targeted(cmd)
}

func queueResume() *cobra.Command {
	q := new(queueFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Ends pauses",
		Long: `Ends the pauses of a green_api block, of an instance, or of both, and prints what is still paused. A
broader pause remains: of an instance, after everything was paused. Without --name and --instance, it
ends everything that was ordered, draining too.

Exit status: 0 if what was asked for is resumed, 1 if a broader pause remains, 2 if the command was not
understood, the server could not be reached, or there is no queue.`,
		Example: `  caddy green-api queue resume
  caddy green-api queue resume --instance 1101000001`,
		Args: noLane,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := q.targetOrAll(cmd, all)
			if err != nil {
				return err
			}
			state, err := order(cmd, q, "queue/resume", query, ordersOf)
			if err != nil {
				return err
			}
			for _, p := range state.Paused {
				if overlap(p.Block, q.name) && overlap(p.Instance, q.instance) {
					err = errFindings
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s is still paused, because %s is\n",
						cmd.CommandPath(), outcome.Printable(targetText(q.name, q.instance)), outcome.Printable(targetText(p.Block, p.Instance)))
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "resume everything, as without --name and --instance")
	return q.targeted(cmd)
}

// overlap reports whether two names have something in common. "" is any name.
func overlap(a, b string) bool { return a == "" || b == "" || a == b }

// targetText says in words what a pause is about.
func targetText(name, instance string) string {
	switch {
	case name != "" && instance != "":
		return "instance " + instance + " of block " + name
	case name != "":
		return "block " + name
	case instance != "":
		return "instance " + instance
	}
	return "all of the queue"
}

// ordersOf says in words what the operator has ordered.
func ordersOf(s api.QueueState) (text string) {
	for _, p := range s.Paused {
		text += "paused: " + targetText(p.Block, p.Instance) + "\n"
	}
	if s.Draining {
		text += "draining: what comes is answered 503, until 'caddy green-api queue drain --off'\n"
	}
	if text == "" {
		return "nothing is paused\n"
	}
	return text
}
