package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// quarantineFlags are the flags that the quarantine commands share.
type quarantineFlags struct {
	adminFlags
	filter       map[string]*[]string
	since, until string
}

func quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Shows what is kept, and delivers or deletes it",
		Long: `Shows what a running server keeps in its quarantine, and delivers or deletes it, through Caddy's admin
API. It finds that as 'caddy reload' does: by --address, by the admin option of --config, or at
localhost:2019.

Without a filter, list and export cover all entries, in order of receipt; replay and delete require
--all for that. If a filter is given several times, any of its values matches. An entry must match all
the filters and, if ids are given, be one of them. A filter without a value is refused, so that an
unset variable does not mean everything.

An entry that cannot be read is reported on standard error. The others follow, and the exit status is 2.`,
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
		{"reason", "why it is kept, such as schema or malformed"},
		{"type", "typeWebhook"},
		{"message", "typeMessage"},
		{"instance", "idInstance"},
		{"chat", "chat id"},
		{"name", "name of the green_api block"},
	} {
		q.filter[f.name] = flags.StringSlice(f.name, nil, f.help)
	}
	flags.StringVar(&q.since, "since", "", "received since, such as 24h or 2026-11-21T15:04:05Z")
	flags.StringVar(&q.until, "until", "", "received before, in the same form")
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

// idsAtOnce is the number of IDs in one request. The server accepts more.
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
	var all, dry bool
	cmd := &cobra.Command{
		Use:   "delete [<id>...]",
		Short: "Deletes entries for good",
		Long: `Deletes entries, and wipes their remains from the file: no byte of their bodies stays in it. The file
keeps its size. Requires ids, a filter, or --all. Of ids beside a filter, only those that match the
filter are deleted. With --dry-run, nothing is deleted: it prints how many entries are meant, from when
they are, and an --until with which the same command means none that comes meanwhile.

Exit status: 0 if all were deleted, 1 if one of the ids does not exist, 2 if the server could not be
reached.`,
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
			if dry {
				return q.dryRun(cmd, http.MethodDelete, "quarantine", query, args)
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
	cmd.Flags().BoolVar(&dry, optionDryRun, false, "only say which entries are meant")
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

// print prints the sum, and the IDs that do not exist.
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
