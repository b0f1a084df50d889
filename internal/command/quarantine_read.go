package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func quarantineList() *cobra.Command {
	q := new(quarantineFlags)
	var limit int
	var after string
	var newest bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists entries, without bodies",
		Long: `Lists entries without their bodies: time of receipt, id, reason, type, instance, size and the first
fault. With --format json it prints one entry a line. The oldest comes first, or with --newest the
newest.

Exit status: 0 if all matching entries were listed, 2 if the command was not understood, the server
could not be reached, or an entry could not be read.`,
		Args: wantFilters,
		Example: `  caddy green-api quarantine list --since 24h
  caddy green-api quarantine list --newest --limit 20
  caddy green-api quarantine list --reason schema --instance 1101000001 --format json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := q.query(cmd)
			switch {
			case err != nil:
				return err
			case limit < 0:
				return usageError(cmd, fmt.Errorf("invalid --limit %d; want 1 or more, or 0 for all", limit))
			case cmd.Flags().Changed("after") && after == "":
				return usageError(cmd, fmt.Errorf("--after: %w", api.ErrEmptyValue))
			case newest && after != "":
				return usageError(cmd, errors.New("--newest and --after: want one of them"))
			}
			count := 0
			list := func(line []byte, e api.Entry) error {
				count++
				if q.format == formatJSON {
					_, err := cmd.OutOrStdout().Write(line)
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), entryLine(e))
				return err
			}
			if newest {
				err = q.newest(cmd, query, limit, list)
			} else {
				if limit > 0 {
					query.Set("limit", strconv.Itoa(limit))
				}
				if after != "" {
					query.Set("after", after)
				}
				err = q.entries(cmd, "quarantine", query, list)
			}
			if err == nil && count == 0 && q.format == formatText {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing is kept that fits")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&newest, "newest", false, "list the newest entry first")
	cmd.Flags().IntVar(&limit, "limit", 0, "maximum number of entries to list; 0 is no limit")
	cmd.Flags().StringVar(&after, "after", "", "list the entries after this id")
	return q.with(cmd, true)
}

// newest asks for entries, the newest first and up to limit, 0 for all, and hands each to do.
func (q *quarantineFlags) newest(cmd *cobra.Command, query url.Values, limit int, do func(line []byte, e api.Entry) error) error {
	for count := 0; ; {
		want := api.MostFound
		if limit > 0 {
			want = min(want, limit-count)
		}
		query.Set("limit", strconv.Itoa(want))
		var found struct {
			api.Found
			Entries []json.RawMessage `json:"entries"` // printed as they come
		}
		err := q.ask(cmd, http.MethodPost, "quarantine/search", query, func(line []byte) error {
			if err := json.Unmarshal(line, &found); err != nil || found.Entries == nil {
				return fmt.Errorf("the admin API says %q", line)
			}
			for _, entry := range found.Entries {
				var e api.Entry
				if err := json.Unmarshal(entry, &e); err != nil {
					return fmt.Errorf("the admin API says %q", entry)
				}
				if err := do(append(entry, '\n'), e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return q.finish(cmd, err)
		}
		for _, trouble := range found.Unreadable {
			q.tell(cmd, trouble)
		}
		if count += len(found.Entries); found.More == "" || limit > 0 && count >= limit {
			return q.finish(cmd, nil)
		}
		query.Set(api.OptionBefore, found.More)
	}
}

// entryLine returns an entry as one line of text.
func entryLine(e api.Entry) string {
	words := []string{e.Received.Local().Format("2006-01-02 15:04:05"), e.ID, e.Reason}
	for _, word := range []string{e.Type, e.Message} {
		if word != "" {
			words = append(words, outcome.Clip(word))
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
		words = append(words, outcome.Clip(e.Faults[0].Pointer)+": "+e.Faults[0].Keyword)
	case len(e.Answers) > 0:
		last := e.Answers[len(e.Answers)-1]
		words = append(words, last.Handler+": "+answerOf(last, ""))
	case e.Reason == reason.Encoding: // the fault is in the header
		for _, name := range slices.Sorted(maps.Keys(e.Header)) {
			words = append(words, name+": "+outcome.Clip(strings.Join(e.Header[name], " and ")))
		}
	}
	return outcome.Printable(strings.Join(words, "  "))
}

// answerOf returns the answer of a handler: the status and a text, or why there is none.
func answerOf(a quarantine.Answer, text string) string {
	words := []string{text, a.Error}
	if a.Status != 0 {
		words = append([]string{strconv.Itoa(a.Status)}, words...)
	}
	return strings.Join(slices.DeleteFunc(words, func(word string) bool { return word == "" }), " ")
}

func quarantineShow() *cobra.Command {
	q := new(quarantineFlags)
	cmd := &cobra.Command{
		Use:   "show <id>",
		Short: "Shows an entry with its body",
		Long: `Shows an entry with its body, and everything that is kept with it.

Exit status: 0 if the entry was shown, 1 if no entry has the id, 2 if the command was not understood, the
server could not be reached, or the entry could not be read.`,
		Example: `  caddy green-api quarantine show 20261121T034150123-0000002a
  caddy green-api quarantine show 20261121T034150123-0000002a --format json`,
		Args: wantID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return q.entries(cmd, "quarantine/"+url.PathEscape(args[0]), nil, func(line []byte, e api.Entry) error {
				out := cmd.OutOrStdout()
				if q.format == formatJSON {
					_, err := out.Write(line)
					return err
				}
				fmt.Fprintln(out, entryLine(e))
				fmt.Fprintf(out, "    from %s, for block %s\n", outcome.Printable(e.Client), outcome.Printable(e.Name))
				for _, fault := range e.Faults {
					fmt.Fprintf(out, "    %s: %s\n", outcome.Printable(fault.Pointer), outcome.Printable(fault.Keyword))
				}
				for _, answer := range e.Answers {
					fmt.Fprintf(out, "    %s: %s\n", outcome.Printable(answer.Handler), outcome.Printable(answerOf(answer, answer.Text)))
				}
				_, err := fmt.Fprintln(out, outcome.Printable(string(e.Bytes())))
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
	if args[0] == "" {
		return errEmptyID
	}
	return nil
}

// wantFilters refuses arguments: they are probably IDs, which these commands do not take.
func wantFilters(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("want filters such as --reason or --instance, and no id; 'caddy green-api quarantine show ID' shows one entry")
	}
	return nil
}

func quarantineExport() *cobra.Command {
	q := new(quarantineFlags)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Writes entries to standard output, with bodies",
		Long: `Writes entries to standard output, one JSON object a line, with the body as the string body, or as
body_base64 if it is not UTF-8. 'caddy green-api check' can read the output.

Exit status: 0 if all matching entries were written, 2 if the command was not understood, the server
could not be reached, or an entry could not be read.`,
		Args: wantFilters,
		Example: `  caddy green-api quarantine export --since 24h >kept.jsonl
  caddy green-api check --schemas /etc/green-api/schemas kept.jsonl`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := q.query(cmd)
			if err != nil {
				return err
			}
			query.Set("body", "true")
			return q.entries(cmd, "quarantine", query, func(line []byte, _ api.Entry) error {
				_, err := cmd.OutOrStdout().Write(line)
				return err
			})
		},
	}
	return q.with(cmd, true)
}
