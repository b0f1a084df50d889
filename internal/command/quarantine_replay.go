package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func quarantineReplay() *cobra.Command {
	q := new(quarantineFlags)
	var recheck, all, dry bool
	var to string
	cmd := &cobra.Command{
		Use:   "replay [<id>...]",
		Short: "Delivers entries to the handlers",
		Long: `Delivers entries to the handlers of their green_api block, in order for each instance, and removes from
the quarantine those that a handler took. Handlers see the header X-Green-Api-Replay with the entry's
id, and a token from the config. With --recheck, an entry that would be kept again if it came now stays
in the quarantine. With --to, entries go to the handlers of another block, for example if their own no
longer exists.

Requires ids, a filter, or --all. Of ids beside a filter, only those that match the filter are replayed.
Entries kept as malformed, encoding or too_large are replayed only if their id or reason is named,
because handlers may be unable to read such a body, or read it differently.

With --dry-run, nothing is delivered: it prints how many entries are meant, from when they are, and an
--until with which the same command means none that comes meanwhile.

Exit status: 0 if all were delivered, 1 if some were not, 2 if the server could not be reached or an
entry could not be read.`,
		Example: `  caddy green-api quarantine replay --reason schema --since 24h --recheck
  caddy green-api quarantine replay --name old-site --to sales
  caddy green-api quarantine replay 20261121T034150123-0000002a`,
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := q.query(cmd)
			switch {
			case err != nil:
				return err
			case len(query)+len(args) == 0 && !all:
				return usageError(cmd, errors.New("nothing said of what to replay; want ids, a filter, or --all"))
			case cmd.Flags().Changed(api.OptionTo) && to == "":
				return usageError(cmd, fmt.Errorf("--%s: %w", api.OptionTo, api.ErrEmptyValue))
			}
			setOptions(query, to, map[string]bool{"recheck": recheck, "all": all})
			if dry {
				return q.dryRun(cmd, http.MethodPost, "quarantine/replay", query, args)
			}
			tally := newReplayTally(cmd)
			err = inParts(cmd, query, args, func(query url.Values) error {
				return q.ask(cmd, http.MethodPost, "quarantine/replay", query, func(line []byte) error {
					return tally.take(line, q.format)
				})
			})
			if err != nil {
				return err
			}
			return q.finish(cmd, tally.close())
		},
	}
	cmd.Flags().BoolVar(&recheck, "recheck", false, "validate first, and keep what still fails")
	cmd.Flags().BoolVar(&all, "all", false, "replay everything, except what has to be named")
	cmd.Flags().BoolVar(&dry, optionDryRun, false, "only say which entries are meant")
	cmd.Flags().StringVar(&to, api.OptionTo, "", "name of the green_api block to deliver through, instead of its own")
	return q.with(cmd, true)
}

// setOptions adds the options to the filter.
func setOptions(query url.Values, to string, flags map[string]bool) {
	if to != "" {
		query.Set(api.OptionTo, to)
	}
	for name, said := range flags {
		if said {
			query.Set(name, "true")
		}
	}
}

// replayTally counts what became of the entries, and prints it.
type replayTally struct {
	out, progress           io.Writer
	terminal                bool // the progress goes to a terminal
	began                   time.Time
	delivered, failed, kept int
	skipped                 int
}

func newReplayTally(cmd *cobra.Command) *replayTally {
	t := &replayTally{out: cmd.OutOrStdout(), began: time.Now()}
	t.progress, t.terminal = terminalOf(cmd.ErrOrStderr())
	return t
}

// take counts a line of the answer, and prints it.
func (t *replayTally) take(line []byte, format string) error {
	var r api.Result
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("the admin API says %q", line)
	}
	t.count(r.Outcome)
	if format == formatJSON {
		_, err := t.out.Write(line)
		return err
	}
	return t.print(r)
}

func (t *replayTally) count(end string) {
	switch end {
	case string(outcome.Delivered):
		t.delivered++
	case api.OutcomeKept:
		t.kept++
	case api.OutcomeSkipped:
		t.skipped++
	default:
		t.failed++
	}
}

func (t *replayTally) String() string {
	return fmt.Sprintf("%d delivered, %d failed, %d still at fault", t.delivered, t.failed, t.kept)
}

// print prints a line about one entry. If a replay on a terminal takes long, delivered entries are
// only counted.
func (t *replayTally) print(r api.Result) error {
	if r.Outcome == api.OutcomeSkipped { // close prints how many
		return nil
	}
	if t.terminal && time.Since(t.began) > time.Second { // a line for each would be too many
		fmt.Fprintf(t.progress, "\r\x1b[K%s", t)
		if r.Outcome == string(outcome.Delivered) {
			return nil
		}
		fmt.Fprint(t.progress, "\r\x1b[K")
	}
	words := []string{fmt.Sprintf("%-9s", r.Outcome), r.ID, r.Type, r.Instance, r.Reason, r.Error}
	words = slices.DeleteFunc(words, func(word string) bool { return word == "" })
	_, err := fmt.Fprintln(t.out, outcome.Printable(strings.Join(words, "  ")))
	return err
}

// close prints the sum.
func (t *replayTally) close() error {
	if t.terminal {
		fmt.Fprint(t.progress, "\r\x1b[K")
	}
	fmt.Fprintf(t.progress, "%s in %s\n", t, round(time.Since(t.began)))
	if t.skipped > 0 {
		fmt.Fprintf(t.progress, "%d skipped: malformed, encoding and too_large are replayed only when named, by --reason or id\n", t.skipped)
	}
	if t.failed+t.kept > 0 {
		return errFindings
	}
	return nil
}
