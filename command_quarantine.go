package greenapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// quarantineFlags are what the quarantine commands have in common.
type quarantineFlags struct {
	address, config, adapter string
	format                   string
	filter                   map[string]*[]string
	since, until             string
}

func quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Looks at what is kept, and delivers or deletes it",
		Long: `Looks at what a running server keeps in its quarantine, and delivers or deletes it, through
Caddy's admin API. It finds that as 'caddy reload' does: by --address, or the admin option of --config,
or on localhost:2019.

Without a filter, a command is about all entries, in the order of their receipt. Of a filter that is
given several times, any value will do; different filters must all be met.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	subs := []*cobra.Command{quarantineList(), quarantineShow(), quarantineReplay(), quarantineDelete(), quarantineExport()}
	for _, sub := range subs {
		sub.Args = usageArgs(sub.Args)
		sub.SilenceErrors = true
		cmd.AddCommand(sub)
	}
	cmd.Args = cobra.NoArgs
	return cmd
}

// with adds the flags to a command.
func (q *quarantineFlags) with(cmd *cobra.Command, filters bool) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&q.address, "address", "", "of the admin API, as localhost:2019 or unix//run/caddy/admin.sock")
	flags.StringVar(&q.config, "config", "", "config file that says where the admin API is")
	flags.StringVar(&q.adapter, "adapter", "", "of that file")
	flags.StringVar(&q.format, "format", formatText, "text or json")
	if !filters {
		return cmd
	}
	q.filter = make(map[string]*[]string)
	for _, f := range []struct{ name, help string }{
		{"reason", "why it is kept, as schema or malformed"},
		{"type", "typeWebhook"},
		{"message", "typeMessage"},
		{"instance", "idInstance"},
		{"chat", "chat id"},
		{"name", "of the green_api block"},
	} {
		q.filter[f.name] = flags.StringSlice(f.name, nil, f.help)
	}
	flags.StringVar(&q.since, "since", "", "received since, as 24h or 2026-11-21T15:04:05Z")
	flags.StringVar(&q.until, "until", "", "received before, likewise")
	return cmd
}

func (q *quarantineFlags) query() url.Values {
	query := make(url.Values)
	for name, values := range q.filter {
		for _, value := range *values {
			query.Add(name, value)
		}
	}
	for name, value := range map[string]string{"since": q.since, "until": q.until} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// ask makes a request of the admin API and hands each line of the answer to do.
func (q *quarantineFlags) ask(cmd *cobra.Command, method, path string, query url.Values, do func(line []byte) error) error {
	if q.format != formatText && q.format != formatJSON {
		return usageError(cmd, fmt.Errorf("invalid --format %q; want text or json", q.format))
	}
	address, err := caddycmd.DetermineAdminAPIAddress(q.address, nil, q.config, q.adapter)
	if err != nil {
		return usageError(cmd, err)
	}
	response, err := caddycmd.AdminAPIRequest(address, method, "/green_api/"+path, make(http.Header), strings.NewReader(query.Encode()))
	if err != nil {
		return usageError(cmd, fmt.Errorf("admin API on %s: %w; if it is elsewhere, say so with --config FILE, that of the Caddy that runs, or --address", address, err))
	}
	defer response.Body.Close()
	reader := bufio.NewReader(response.Body)
	for {
		line, err := reader.ReadBytes('\n')
		if len(line) > 0 && err == nil {
			if err := do(line); err != nil {
				return usageError(cmd, err)
			}
			continue
		}
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		return usageError(cmd, errors.New("the answer of the admin API broke off"))
	}
}

// entries is ask for entries.
func (q *quarantineFlags) entries(cmd *cobra.Command, path string, query url.Values, do func(line []byte, e shownEntry) error) error {
	return q.ask(cmd, http.MethodGet, path, query, func(line []byte) error {
		var e shownEntry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("the admin API says %q", line)
		}
		return do(line, e)
	})
}

func quarantineList() *cobra.Command {
	q := new(quarantineFlags)
	var limit int
	var after string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists what is kept, without bodies",
		Long: `Lists what is kept, without bodies: time of receipt, id, reason, type, instance, size and the first
fault. With --format json it prints an entry a line.`,
		Example: `  caddy green-api quarantine list --since 24h
  caddy green-api quarantine list --reason schema --instance 1101000001 --format json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := q.query()
			if limit > 0 {
				query.Set("limit", strconv.Itoa(limit))
			}
			if after != "" {
				query.Set("after", after)
			}
			count := 0
			err := q.entries(cmd, "quarantine", query, func(line []byte, e shownEntry) error {
				count++
				if q.format == formatJSON {
					_, err := cmd.OutOrStdout().Write(line)
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), entryLine(e))
				return err
			})
			if err == nil && count == 0 && q.format == formatText {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing is kept that fits")
			}
			return err
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "most entries to list; 0 is all")
	cmd.Flags().StringVar(&after, "after", "", "list what comes after this id")
	return q.with(cmd, true)
}

// entryLine is an entry in one line.
func entryLine(e shownEntry) string {
	words := []string{e.Received.Local().Format("2006-01-02 15:04:05"), e.ID, e.Reason}
	for _, word := range []string{e.Type, e.Message} {
		if word != "" {
			words = append(words, clip(word))
		}
	}
	if e.Instance != "" {
		words = append(words, "instance "+e.Instance)
	}
	words = append(words, fmt.Sprintf("%d bytes", e.Size))
	switch {
	case e.Cause != "":
		words = append(words, fmt.Sprintf("byte %d: %s", e.Offset, e.Cause))
	case len(e.Faults) > 0:
		words = append(words, clip(e.Faults[0].Pointer)+": "+e.Faults[0].Keyword)
	case len(e.Answers) > 0:
		last := e.Answers[len(e.Answers)-1]
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s: %d %s", last.Handler, last.Status, last.Error)))
	}
	return printable(strings.Join(words, "  "))
}

func quarantineShow() *cobra.Command {
	q := new(quarantineFlags)
	cmd := &cobra.Command{
		Use:   "show <id>",
		Short: "Shows an entry with its body",
		Example: `  caddy green-api quarantine show 20261121T034150123-0000002a
  caddy green-api quarantine show 20261121T034150123-0000002a --format json`,
		Args: wantID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return q.entries(cmd, "quarantine/"+url.PathEscape(args[0]), nil, func(line []byte, e shownEntry) error {
				out := cmd.OutOrStdout()
				if q.format == formatJSON {
					_, err := out.Write(line)
					return err
				}
				fmt.Fprintln(out, entryLine(e))
				fmt.Fprintf(out, "    from %s, for block %s\n", printable(e.Client), printable(e.Name))
				for _, fault := range e.Faults {
					fmt.Fprintf(out, "    %s: %s\n", printable(fault.Pointer), printable(fault.Keyword))
				}
				for _, answer := range e.Answers {
					fmt.Fprintf(out, "    %s answered %d %s\n", printable(answer.Handler), answer.Status, printable(answer.Text+answer.Error))
				}
				_, err := fmt.Fprintln(out, printable(string(e.body())))
				return err
			})
		},
	}
	return q.with(cmd, false)
}

func wantID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("want the id of one entry, as list prints it")
	}
	return nil
}

func quarantineReplay() *cobra.Command {
	q := new(quarantineFlags)
	var recheck bool
	cmd := &cobra.Command{
		Use:   "replay [<id>...]",
		Short: "Delivers what is kept to the handlers",
		Long: `Delivers what is kept to the handlers of its green_api block, those of an instance in order, and
takes out what a handler took. Handlers see the header X-Green-Api-Replay with the entry's id, and a
token of the config. With --recheck, what still fails its schema stays where it is.

Exit status: 0 if all were delivered, 1 if some were not, 2 if the server could not be asked.`,
		Example: `  caddy green-api quarantine replay --reason schema --since 24h --recheck
  caddy green-api quarantine replay 20261121T034150123-0000002a`,
		RunE: func(cmd *cobra.Command, args []string) error {
			query := q.query()
			for _, id := range args {
				query.Add("id", id)
			}
			if recheck {
				query.Set("recheck", "true")
			}
			tally := newReplayTally(cmd)
			err := q.ask(cmd, http.MethodPost, "quarantine/replay", query, func(line []byte) error {
				var r replayed
				if err := json.Unmarshal(line, &r); err != nil {
					return fmt.Errorf("the admin API says %q", line)
				}
				tally.count(r.Outcome)
				if q.format == formatJSON {
					_, err := tally.out.Write(line)
					return err
				}
				return tally.print(r)
			})
			if err != nil {
				return err
			}
			return tally.close()
		},
	}
	cmd.Flags().BoolVar(&recheck, "recheck", false, "validate first, and keep what still fails")
	return q.with(cmd, true)
}

// replayTally counts what became of the entries, and prints it.
type replayTally struct {
	out, progress           io.Writer
	terminal                bool // that the progress is shown on
	began                   time.Time
	delivered, failed, kept int
}

func newReplayTally(cmd *cobra.Command) *replayTally {
	t := &replayTally{out: cmd.OutOrStdout(), began: time.Now()}
	t.progress, t.terminal = terminalOf(cmd.ErrOrStderr())
	return t
}

func (t *replayTally) count(end string) {
	switch end {
	case string(delivered):
		t.delivered++
	case outcomeKept:
		t.kept++
	default:
		t.failed++
	}
}

func (t *replayTally) String() string {
	return fmt.Sprintf("%d delivered, %d failed, %d still at fault", t.delivered, t.failed, t.kept)
}

// print prints a line about one entry. On a terminal, of those that are delivered it shows only how
// many they are, once that takes long.
func (t *replayTally) print(r replayed) error {
	if t.terminal && time.Since(t.began) > time.Second { // a line each would be too many
		fmt.Fprintf(t.progress, "\r\x1b[K%s", t)
		if r.Outcome == string(delivered) {
			return nil
		}
		fmt.Fprint(t.progress, "\r\x1b[K")
	}
	words := []string{fmt.Sprintf("%-9s", r.Outcome), r.ID, r.Type, r.Instance, r.Reason, r.Error}
	words = slices.DeleteFunc(words, func(word string) bool { return word == "" })
	_, err := fmt.Fprintln(t.out, printable(strings.Join(words, "  ")))
	return err
}

// close prints the sum.
func (t *replayTally) close() error {
	if t.terminal {
		fmt.Fprint(t.progress, "\r\x1b[K")
	}
	fmt.Fprintf(t.progress, "%s in %s\n", t, round(time.Since(t.began)))
	if t.failed+t.kept > 0 {
		return errFindings
	}
	return nil
}

func quarantineDelete() *cobra.Command {
	q := new(quarantineFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "delete [<id>...]",
		Short: "Deletes what is kept, for good",
		Long: `Deletes entries, and wipes what the file has left of them: no byte of their bodies stays in it. The
file keeps its size. Wants ids, a filter, or --all.`,
		Example: `  caddy green-api quarantine delete 20261121T034150123-0000002a
  caddy green-api quarantine delete --chat 79001234568@c.us
  caddy green-api quarantine delete --until 720h`,
		RunE: func(cmd *cobra.Command, args []string) error {
			query := q.query()
			for _, id := range args {
				query.Add("id", id)
			}
			if len(query) == 0 && !all {
				return usageError(cmd, errors.New("nothing said of what to delete; want ids, a filter, or --all"))
			}
			if all {
				query.Set("all", "true")
			}
			return q.ask(cmd, http.MethodDelete, "quarantine", query, func(line []byte) error {
				var said struct{ Deleted int }
				if err := json.Unmarshal(line, &said); err != nil {
					return fmt.Errorf("the admin API says %q", line)
				}
				if q.format == formatJSON {
					_, err := cmd.OutOrStdout().Write(line)
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d deleted\n", said.Deleted)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "delete everything")
	return q.with(cmd, true)
}

func quarantineExport() *cobra.Command {
	q := new(quarantineFlags)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Writes what is kept to the standard output, with bodies",
		Long: `Writes what is kept to the standard output, an object of JSON a line, with the body as the string
body, or body_base64 if it is not UTF-8. 'caddy green-api check' reads it again.`,
		Example: `  caddy green-api quarantine export --since 24h >kept.jsonl
  caddy green-api check --schemas /etc/green-api/schemas kept.jsonl`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := q.query()
			query.Set("body", "true")
			return q.entries(cmd, "quarantine", query, func(line []byte, _ shownEntry) error {
				_, err := cmd.OutOrStdout().Write(line)
				return err
			})
		},
	}
	return q.with(cmd, true)
}
