package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func queueList() *cobra.Command {
	q := new(queueFlags)
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists lanes, the one that has waited longest first",
		Long: `Lists lanes, the one that has waited longest first: its id, the block if there are several, instance
and chat, how many notifications it has and for how long the first one has waited, the lane's state,
how often the first one was tried in vain, when it will be tried again, and why it failed. The last
line sums up. With --format json it prints one lane a line.

The states are ready, delivering, waiting (for the next round), paused, and no_handler (the config no
longer has the block, or not its reverse_proxy). If handlers hang and lanes wait for a place, it says so
on stderr.

Exit status: 0 also if the queue is empty, 2 if the command was not understood, the server could not be
reached, or there is no queue.`,
		Example: `  caddy green-api queue list
  caddy green-api queue list --instance 1101000001 --format json`,
		Args: noLane,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := q.target(cmd)
			if err != nil {
				return err
			}
			if err := setLimit(cmd, query, limit); err != nil {
				return err
			}
			filtered := len(query) > 0
			var lanes []api.QueueLane
			err = q.ask(cmd, http.MethodGet, "queue", query, func(line []byte) error {
				if q.format == formatJSON {
					_, err := cmd.OutOrStdout().Write(line)
					return err
				}
				var l api.QueueLane
				if err := json.Unmarshal(line, &l); err != nil || l.Lane == "" {
					return fmt.Errorf("the admin API says %q", line)
				}
				lanes = append(lanes, l)
				return nil
			})
			if err != nil || q.format == formatJSON {
				return err
			}
			return q.print(cmd, lanes, filtered)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "maximum number of lanes to list; 0 is no limit")
	return q.targeted(cmd)
}

// setLimit adds the limit to the parameters.
func setLimit(cmd *cobra.Command, query url.Values, limit int) error {
	switch {
	case limit < 0:
		return usageError(cmd, fmt.Errorf("invalid --limit %d; want 1 or more, or 0 for all", limit))
	case limit > 0:
		query.Set("limit", strconv.Itoa(limit))
	}
	return nil
}

// print prints the lanes that were asked for, and what the operator has ordered.
func (q *queueFlags) print(cmd *cobra.Command, lanes []api.QueueLane, filtered bool) error {
	var state api.QueueState
	err := q.ask(cmd, http.MethodGet, "queue/state", nil, func(line []byte) error { return json.Unmarshal(line, &state) })
	if err != nil {
		return err
	}
	switch {
	case len(lanes) > 0:
		err = printLanes(cmd.OutOrStdout(), lanes, &state, time.Now())
	case filtered:
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing in the queue fits")
	default:
		fmt.Fprintln(cmd.ErrOrStderr(), "the queue is empty")
	}
	for _, c := range state.Crowded {
		fmt.Fprint(cmd.ErrOrStderr(), outcome.PrintableLines(crowdText(&c, time.Now())))
	}
	if len(state.Paused) > 0 || state.Draining {
		fmt.Fprint(cmd.ErrOrStderr(), outcome.PrintableLines(ordersOf(state)))
	}
	return err
}

// printLanes prints lanes as a table, and what they add up to.
func printLanes(out io.Writer, lanes []api.QueueLane, state *api.QueueState, now time.Time) error {
	blocks := slices.ContainsFunc(lanes, func(l api.QueueLane) bool { return l.Name != lanes[0].Name })
	chats := slices.ContainsFunc(lanes, func(l api.QueueLane) bool { return l.Chat != "" })
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(lane, name, instance, chat string, others ...string) {
		cells := []string{lane}
		if blocks {
			cells = append(cells, name)
		}
		cells = append(cells, instance)
		if chats {
			cells = append(cells, chat)
		}
		cells = append(cells, others...)
		for i, cell := range cells {
			cells[i] = cmp.Or(outcome.Clip(cell), "-")
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	row("LANE", "BLOCK", "INSTANCE", "CHAT", "ENTRIES", "OLDEST", "STATE", "TRIES", "NEXT", "REASON")
	for _, l := range lanes {
		row(l.Lane, l.Name, l.Instance, l.Chat, strconv.Itoa(l.Entries), span(now.Sub(l.Oldest)), l.State, strconv.Itoa(l.Round), nextIn(&l, now), l.Reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, sumOf(lanes, state))
	return err
}

// sumOf returns what lanes add up to, and what all of the queue does if they are not all.
func sumOf(lanes []api.QueueLane, state *api.QueueState) string {
	entries, bytes := 0, int64(0)
	states := make(map[string]int)
	for _, l := range lanes {
		entries += l.Entries
		bytes += l.Bytes
		states[l.State]++
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(states)) {
		words = append(words, fmt.Sprintf("%d %s", states[name], name))
	}
	text := amount(len(lanes), entries, bytes) + ": " + outcome.Printable(strings.Join(words, ", "))
	if state.Lanes > len(lanes) {
		text += "; in all " + amount(state.Lanes, state.Entries, state.Bytes)
	}
	return text + "; the queue may use " + sizeOf(state.MaxBytes)
}

// crowdText says that lanes wait for a place.
func crowdText(c *api.QueueCrowd, now time.Time) string {
	return fmt.Sprintf("all places of the block %s (%d) have been taken for %s, by the lanes that are delivering; %s for one\n",
		c.Name, c.InFlight, span(now.Sub(c.Since)), wait(c.Ready))
}

func wait(lanes int) string {
	if lanes == 1 {
		return "1 lane waits"
	}
	return countOf(lanes, "lane") + " wait"
}

func amount(lanes, entries int, bytes int64) string {
	return fmt.Sprintf("%s, %s, %s", countOf(lanes, "lane"), countOf(entries, "notification"), sizeOf(bytes))
}

func sizeOf(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// nextIn says when the next round of a lane begins.
func nextIn(l *api.QueueLane, now time.Time) string {
	switch {
	case l.Next.IsZero():
		return ""
	case !l.Next.After(now):
		return "now"
	}
	return "in " + span(l.Next.Sub(now))
}

// span returns a duration in at most two units, which is all that one wants to know of it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func queueShow() *cobra.Command {
	q := new(queueFlags)
	var limit int
	cmd := &cobra.Command{
		Use:   "show <lane>",
		Short: "Shows a lane, with its first notifications",
		Long: `Shows a lane, with the last answer of a handler to its first notification if that has failed, and its
first notifications in their order: time of receipt, position in the queue, size, chat, type and idMessage.
With --format json it prints the lane as list does, and behind it one notification a line.

Exit status: 0 if the lane was shown, 1 if no lane has the id, 2 if the command was not understood, the
server could not be reached, or there is no queue.`,
		Example: `  caddy green-api queue show 3f2a9c01b7de
  caddy green-api queue show 3f2a9c01b7de --limit 1 --format json`,
		Args: wantLane,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usageError(cmd, fmt.Errorf("invalid --limit %d; want 1 or more", limit))
			}
			out, lines, entries := cmd.OutOrStdout(), 0, 0
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			err := q.ask(cmd, http.MethodGet, "queue/"+url.PathEscape(args[0]), query, func(line []byte) error {
				lines++
				if q.format == formatJSON {
					_, err := out.Write(line)
					return err
				}
				if lines > 1 {
					return printQueued(out, line)
				}
				var l api.QueueLane
				if err := json.Unmarshal(line, &l); err != nil || l.Lane == "" {
					return fmt.Errorf("the admin API says %q", line)
				}
				entries = l.Entries
				_, err := fmt.Fprint(out, outcome.PrintableLines(laneText(&l, time.Now())))
				return err
			})
			if hidden := entries - (lines - 1); err == nil && q.format == formatText && hidden > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d more, see --limit\n", hidden)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "maximum number of notifications to show")
	return q.with(cmd)
}

// laneText describes a lane in words.
func laneText(l *api.QueueLane, now time.Time) string {
	text := l.Lane + "  block " + l.Name
	if l.Instance != "" {
		text += "  instance " + l.Instance
	}
	if l.Chat != "" {
		text += "  chat " + outcome.Clip(l.Chat)
	}
	text += fmt.Sprintf("\n    %s, %s, the first one for %s\n    %s", countOf(l.Entries, "notification"), sizeOf(l.Bytes), span(now.Sub(l.Oldest)), l.State)
	if l.Round > 0 {
		text += fmt.Sprintf(", tried in vain %s, for %s", countOf(l.Round, "time"), l.Reason)
	}
	if next := nextIn(l, now); next != "" {
		text += ", next " + next
	}
	if l.Answer != nil {
		text += "\n    " + saidText(l.Answer)
	}
	return text + "\n"
}

// saidText returns the first line of a handler's answer, or why there is none.
func saidText(a *api.QueueAnswer) string {
	line, _, _ := strings.Cut(strings.TrimSpace(a.Text), "\n")
	return outcome.Clip(a.Handler) + ": " + answerOf(quarantine.Answer{Status: a.Status, Error: a.Error}, outcome.Printable(line))
}

// printQueued prints a notification of a lane.
func printQueued(out io.Writer, line []byte) error {
	var e api.QueueEntry
	if err := json.Unmarshal(line, &e); err != nil || e.Received.IsZero() {
		return fmt.Errorf("the admin API says %q", line)
	}
	words := []string{e.Received.Local().Format("2006-01-02 15:04:05"), fmt.Sprintf("seq %d", e.Seq), fmt.Sprintf("%d bytes", e.Size)}
	if e.Chat != "" {
		words = append(words, outcome.Clip(e.Chat))
	}
	if kind := strings.Trim(e.Type+"."+e.Message, "."); kind != "" {
		words = append(words, outcome.Clip(kind))
	}
	if e.ID != "" {
		words = append(words, "id "+outcome.Clip(e.ID))
	}
	_, err := fmt.Fprintln(out, strings.Join(words, "  "))
	return err
}
