package command

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

const optionDryRun = "dry-run"

// dryRun prints what a replay or a deletion would be about.
func (q *quarantineFlags) dryRun(cmd *cobra.Command, method, path string, query url.Values, args []string) error {
	query.Set("dry_run", "true")
	var sum dryRunSum
	err := inParts(cmd, query, args, func(query url.Values) error { return q.ask(cmd, method, path, query, sum.take) })
	if err != nil {
		return err
	}
	return q.finish(cmd, sum.print(cmd, q.format))
}

// dryRunSum sums up the answers to several requests, one after another.
type dryRunSum struct{ api.DryRun }

func (d *dryRunSum) take(line []byte) error {
	var said api.DryRun
	if err := json.Unmarshal(line, &said); err != nil {
		return fmt.Errorf("the admin API says %q", line)
	}
	if d.Oldest.IsZero() || !said.Oldest.IsZero() && said.Oldest.Before(d.Oldest) {
		d.Oldest = said.Oldest
	}
	if said.Newest.After(d.Newest) {
		d.Newest = said.Newest
	}
	if d.Until == "" { // of the first request: what it does not mean, none may
		d.Until = said.Until
	}
	d.Count += said.Count
	d.Skipped += said.Skipped
	d.Unreadable += said.Unreadable
	d.Missing = append(d.Missing, said.Missing...)
	return nil
}

func (d *dryRunSum) print(cmd *cobra.Command, format string) error {
	if format == formatJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(d.DryRun)
	}
	out := cmd.OutOrStdout()
	what := "entries"
	if d.Count == 1 {
		what = "entry"
	}
	fmt.Fprintf(out, "%d %s", d.Count, what)
	if d.Count > 0 {
		fmt.Fprintf(out, ", received from %s to %s", d.Oldest.UTC().Format(time.RFC3339), d.Newest.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(out)
	if d.Skipped > 0 {
		fmt.Fprintf(out, "%d more would be skipped, because handlers may be unable to read them: name their reason or id\n", d.Skipped)
	}
	if d.Unreadable > 0 {
		fmt.Fprintf(out, "%d more cannot be read\n", d.Unreadable)
	}
	for _, id := range d.Missing {
		fmt.Fprintf(out, "no entry has the id %s\n", outcome.Printable(id))
	}
	if d.Count > 0 {
		fmt.Fprintf(out, "Nothing was done. The same command with --until %s instead of --%s means these, and none that comes meanwhile.\n", d.Until, optionDryRun)
	}
	return nil
}
