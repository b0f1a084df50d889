package command

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
	"strings"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// quarantineFlags is what the quarantine commands have in common.
type quarantineFlags struct {
	adminFlags
	filter       map[string]*[]string
	since, until string

	troubled bool // a line of an answer was about something that went wrong
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
filters must all be met, and so must ids beside a filter. A filter without a value is refused: an unset variable must not mean all.

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
	q.adminFlags.with(cmd)
	if !filters {
		return cmd
	}
	flags := cmd.Flags()
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

// query returns the parameters that the flags ask for.
func (q *quarantineFlags) query(cmd *cobra.Command) (url.Values, error) {
	query := make(url.Values)
	for name, values := range q.filter {
		if cmd.Flags().Changed(name) && (len(*values) == 0 || slices.Contains(*values, "")) {
			return nil, usageError(cmd, fmt.Errorf("--%s: %w", name, api.ErrEmptyValue))
		}
		for _, value := range *values {
			query.Add(name, value)
		}
	}
	for name, value := range map[string]string{"since": q.since, "until": q.until} {
		if value != "" {
			query.Set(name, value)
		} else if cmd.Flags().Changed(name) {
			return nil, usageError(cmd, fmt.Errorf("--%s: %w", name, api.ErrEmptyValue))
		}
	}
	return query, nil
}

// idsAtOnce is how many IDs one request names. The server takes more.
const idsAtOnce = 10_000

var errEmptyID = errors.New("an id is empty; want one as list prints it")

// inParts calls do with the query and the IDs, idsAtOnce at a time.
func inParts(cmd *cobra.Command, query url.Values, ids []string, do func(url.Values) error) error {
	if len(ids) == 0 {
		return do(query)
	}
	if slices.Contains(ids, "") {
		return usageError(cmd, errEmptyID)
	}
	for part := range slices.Chunk(slices.Sorted(slices.Values(ids)), idsAtOnce) { // in the order of receipt
		query["id"] = part
		if err := do(query); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a request to the admin API and hands each line of the answer to do.
func (q *quarantineFlags) ask(cmd *cobra.Command, method, path string, query url.Values, do func(line []byte) error) error {
	address, err := q.find()
	if err != nil {
		return usageError(cmd, err)
	}
	response, err := askAdmin(address, method, path, strings.NewReader(query.Encode()))
	if err != nil {
		return noAnswer(cmd, address, err)
	}
	defer response.Body.Close()
	reader := bufio.NewReader(response.Body)
	for {
		line, err := reader.ReadBytes('\n')
		if len(line) > 0 && err == nil {
			if q.isTrouble(cmd, line) {
				continue
			}
			if err := do(outcome.PrintableJSON(line)); err != nil {
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

// noAnswer ends a command whose request failed.
func noAnswer(cmd *cobra.Command, address string, err error) error {
	said, ok := errors.AsType[*adminError](err)
	switch {
	case !ok || said.text == api.ErrNoEdge.Error():
		return usageError(cmd, fmt.Errorf("admin API on %s: %w; if it is elsewhere, say so with --config FILE, that of the Caddy that runs, or --address", address, err))
	case said.status == http.StatusBadRequest:
		return usageError(cmd, said)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), outcome.Printable(said.text))
	if said.status == http.StatusNotFound {
		return errFindings
	}
	return exit(cmd, exitUsage)
}

// isTrouble reports whether a line is about something that went wrong. If so, it prints the line.
func (q *quarantineFlags) isTrouble(cmd *cobra.Command, line []byte) bool {
	var trouble api.LineError
	if !bytes.HasPrefix(line, []byte(`{"error":`)) || json.Unmarshal(line, &trouble) != nil {
		return false
	}
	q.troubled = true
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), outcome.Printable(trouble.Error))
	return true
}

// finish ends a command, with the exit code for trouble if a line was about something that went wrong.
func (q *quarantineFlags) finish(cmd *cobra.Command, err error) error {
	if q.troubled && (err == nil || errors.Is(err, errFindings)) {
		return exit(cmd, exitUsage)
	}
	return err
}

// entries asks for entries, and hands each to do.
func (q *quarantineFlags) entries(cmd *cobra.Command, path string, query url.Values, do func(line []byte, e api.Entry) error) error {
	return q.finish(cmd, q.ask(cmd, http.MethodGet, path, query, func(line []byte) error {
		var e api.Entry
		if err := json.Unmarshal(line, &e); err != nil || e.ID == "" {
			return fmt.Errorf("the admin API says %q", line)
		}
		return do(line, e)
	}))
}

func quarantineDelete() *cobra.Command {
	q := new(quarantineFlags)
	var all bool
	cmd := &cobra.Command{
		Use:   "delete [<id>...]",
		Short: "Deletes what is kept, for good",
		Long: `Deletes entries, and wipes what the file has left of them: no byte of their bodies stays in it. The
file keeps its size. Wants ids, a filter, or --all. Of ids beside a filter, only those are deleted that
the filter means.

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

// deletion sums up the answers to several requests.
type deletion struct{ api.Deletion }

// take adds the answer to one request.
func (d *deletion) take(line []byte) error {
	var said api.Deletion
	if err := json.Unmarshal(line, &said); err != nil {
		return fmt.Errorf("the admin API says %q", line)
	}
	d.Deleted += said.Deleted
	d.Missing = append(d.Missing, said.Missing...)
	return nil
}

// print prints the sum, and the IDs that no entry has.
func (d *deletion) print(cmd *cobra.Command, format string) error {
	var err error
	if format == formatJSON {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(d)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d deleted\n", d.Deleted)
	}
	for _, id := range d.Missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: no entry has the id %s\n", cmd.CommandPath(), outcome.Printable(id))
	}
	if err == nil && len(d.Missing) > 0 {
		return errFindings
	}
	return err
}
