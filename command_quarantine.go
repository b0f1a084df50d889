package greenapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// quarantineFlags are what the quarantine commands have in common.
type quarantineFlags struct {
	address, config, adapter string
	format                   string
	filter                   map[string]*[]string
	since, until             string

	troubled bool // something was said to be wrong behind the first line of an answer
}

func quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Looks at what is kept, and delivers or deletes it",
		Long: `Looks at what a running server keeps in its quarantine, and delivers or deletes it, through
Caddy's admin API. It finds that as 'caddy reload' does: by --address, or the admin option of --config,
or on localhost:2019.

Without a filter, list and export are about all entries, in the order of their receipt; replay and
delete want --all for that. Of a filter that is given several times, any value will do; different
filters must all be met. A filter without a value is refused: an unset variable must not mean all.

An entry that cannot be read is said on the standard error; the others follow, and the exit status is 2.`,
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

// query is what the flags ask for.
func (q *quarantineFlags) query(cmd *cobra.Command) (url.Values, error) {
	query := make(url.Values)
	for name, values := range q.filter {
		if cmd.Flags().Changed(name) && (len(*values) == 0 || slices.Contains(*values, "")) {
			return nil, usageError(cmd, fmt.Errorf("--%s: %w", name, errEmptyValue))
		}
		for _, value := range *values {
			query.Add(name, value)
		}
	}
	for name, value := range map[string]string{"since": q.since, "until": q.until} {
		if value != "" {
			query.Set(name, value)
		} else if cmd.Flags().Changed(name) {
			return nil, usageError(cmd, fmt.Errorf("--%s: %w", name, errEmptyValue))
		}
	}
	return query, nil
}

// idsAtOnce is how many ids one request names: fewer than the server takes.
const idsAtOnce = 10_000

// inParts calls do with the query and the ids, as many of them at a time as a request may have.
func inParts(cmd *cobra.Command, query url.Values, ids []string, do func(url.Values) error) error {
	if len(ids) == 0 {
		return do(query)
	}
	if slices.Contains(ids, "") {
		return usageError(cmd, errors.New("an id is empty; want one as list prints it"))
	}
	for part := range slices.Chunk(slices.Sorted(slices.Values(ids)), idsAtOnce) { // in the order of receipt
		query["id"] = part
		if err := do(query); err != nil {
			return err
		}
	}
	return nil
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
			if q.isTrouble(cmd, line) {
				continue
			}
			if err := do(printableJSON(line)); err != nil {
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

// isTrouble reports whether a line is about something that went wrong, and says it.
func (q *quarantineFlags) isTrouble(cmd *cobra.Command, line []byte) bool {
	var trouble lineError
	if !bytes.HasPrefix(line, []byte(`{"error":`)) || json.Unmarshal(line, &trouble) != nil {
		return false
	}
	q.troubled = true
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), printable(trouble.Error))
	return true
}

// finish ends a command that may have met trouble on its way.
func (q *quarantineFlags) finish(cmd *cobra.Command, err error) error {
	if q.troubled && (err == nil || errors.Is(err, errFindings)) {
		return exit(cmd, exitUsage)
	}
	return err
}

// entries is ask for entries.
func (q *quarantineFlags) entries(cmd *cobra.Command, path string, query url.Values, do func(line []byte, e shownEntry) error) error {
	return q.finish(cmd, q.ask(cmd, http.MethodGet, path, query, func(line []byte) error {
		var e shownEntry
		if err := json.Unmarshal(line, &e); err != nil || e.ID == "" {
			return fmt.Errorf("the admin API says %q", line)
		}
		return do(line, e)
	}))
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
			query, err := q.query(cmd)
			if err != nil {
				return err
			}
			if limit > 0 {
				query.Set("limit", strconv.Itoa(limit))
			}
			if after != "" {
				query.Set("after", after)
			}
			count := 0
			err = q.entries(cmd, "quarantine", query, func(line []byte, e shownEntry) error {
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

func quarantineDelete() *cobra.Command {
	q := new(quarantineFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "delete [<id>...]",
		Short: "Deletes what is kept, for good",
		Long: `Deletes entries, and wipes what the file has left of them: no byte of their bodies stays in it. The
file keeps its size. Wants ids, a filter, or --all.

Exit status: 0 if it is done, 1 if no entry has one of the ids, 2 if the server could not be asked.`,
		Example: `  caddy green-api quarantine delete 20261121T034150123-0000002a
  caddy green-api quarantine delete --chat 79001234568@c.us
  caddy green-api quarantine delete --until 720h`,
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := q.query(cmd)
			if err != nil {
				return err
			}
			if len(query)+len(args) == 0 && !all {
				return usageError(cmd, errors.New("nothing said of what to delete; want ids, a filter, or --all"))
			}
			if all {
				query.Set("all", "true")
			}
			var sum deletion
			err = inParts(cmd, query, args, func(query url.Values) error {
				return q.ask(cmd, http.MethodDelete, "quarantine", query, sum.take)
			})
			if err != nil {
				return err
			}
			return q.finish(cmd, sum.print(cmd, q.format))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "delete everything")
	return q.with(cmd, true)
}

// take adds the answer to one request.
func (d *deletion) take(line []byte) error {
	var said deletion
	if err := json.Unmarshal(line, &said); err != nil {
		return fmt.Errorf("the admin API says %q", line)
	}
	d.Deleted += said.Deleted
	d.Missing = append(d.Missing, said.Missing...)
	return nil
}

// print prints the sum, and says what was not there.
func (d *deletion) print(cmd *cobra.Command, format string) error {
	var err error
	if format == formatJSON {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(d)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d deleted\n", d.Deleted)
	}
	for _, id := range d.Missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: no entry has the id %s\n", cmd.CommandPath(), printable(id))
	}
	if err == nil && len(d.Missing) > 0 {
		return errFindings
	}
	return err
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
			query, err := q.query(cmd)
			if err != nil {
				return err
			}
			query.Set("body", "true")
			return q.entries(cmd, "quarantine", query, func(line []byte, _ shownEntry) error {
				_, err := cmd.OutOrStdout().Write(line)
				return err
			})
		},
	}
	return q.with(cmd, true)
}
