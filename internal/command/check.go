package command

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

const (
	formatText = "text"
	formatJSON = "json"
)

func checkCommand() *cobra.Command {
	var format, schemas string
	cmd := &cobra.Command{
		Use:   "check [--format text|json] [--schemas <dir>] <file|dir|->...",
		Short: "Checks what would become of a notification's body",
		Long: `Prints for each body whether the edge would pass, drop or quarantine it, and why, with the place of
each fault. A directory stands for its *.json files, - for standard input. The command also reads the
output of 'quarantine export', and answers of the HTTP API ({"receiptId":…,"body":{…}}). For such an
answer it checks the body and says so; with --format json, on standard error.

With --format json it prints one object a line, with file, type, message, instance, outcome,
reason, and errors, a list of objects with pointer, keyword and message.

Exit status: 0 if all pass or are dropped, 1 if some would be quarantined, 2 if the command was
not understood or a file could not be read.`,
		Example: `  caddy green-api check notification.json
  caddy green-api check --format json --schemas /etc/green-api/schemas bodies/
  curl -s https://example.com/body.json | caddy green-api check -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("want a file, a directory or -")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != formatText && format != formatJSON {
				return usageError(cmd, fmt.Errorf("invalid --format %q; want text or json", format))
			}
			loaded, err := notification.LoadSchemas(schemas)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--schemas: %w", err))
			}
			for _, w := range loaded.Warnings() {
				fmt.Fprintf(cmd.ErrOrStderr(), "caddy green-api check: --schemas: %s: %s: %s\n", outcome.Printable(w.File), outcome.Printable(cmp.Or(w.Pointer, "/")), outcome.Printable(w.Text))
			}
			c := &checker{
				rules: judge.Defaults(), in: cmd.InOrStdin(), out: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), json: format == formatJSON,
			}
			c.rules.Schemas = loaded
			for _, arg := range args {
				if err := c.check(arg); err != nil {
					c.skip(err)
				}
			}
			switch {
			case c.unreadable:
				return exit(cmd)
			case c.quarantined:
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", formatText, "output format, text or json")
	cmd.Flags().StringVar(&schemas, "schemas", "", "directory of schemas that replace or add to the built-in ones")
	return cmd
}

// checker judges bodies by the rules of a validate gate without options, and prints the results.
type checker struct {
	rules  judge.Rules
	in     io.Reader
	out    io.Writer
	stderr io.Writer
	json   bool

	quarantined, unreadable bool
}

// finding is a line of check's JSON output.
type finding struct {
	File     string               `json:"file"`
	Type     string               `json:"type"`
	Message  string               `json:"message"`
	Instance string               `json:"instance"`
	Outcome  string               `json:"outcome"`
	Reason   string               `json:"reason"`
	Errors   []notification.Fault `json:"errors"`
}

// check judges a file, the files of a directory, or the standard input.
func (c *checker) check(arg string) error {
	if arg == "-" {
		body, err := io.ReadAll(c.in)
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		return c.printAll(arg, body)
	}
	info, err := os.Stat(arg)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return c.checkFile(arg)
	}
	count := 0
	err = filepath.WalkDir(arg, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.IsDir() || filepath.Ext(path) != ".json") {
			return nil
		}
		count++
		if err == nil {
			err = c.checkFile(path)
		}
		if err != nil {
			c.skip(err)
		}
		return nil
	})
	if err == nil && count == 0 {
		err = fmt.Errorf("%s: no *.json file in it", arg)
	}
	return err
}

// skip reports why something is not judged. The check continues with the rest.
func (c *checker) skip(err error) {
	fmt.Fprintf(c.stderr, "caddy green-api check: %s\n", outcome.PrintableLines(err.Error()))
	c.unreadable = true
}

func (c *checker) checkFile(path string) error {
	body, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	return c.printAll(path, body)
}

// printAll judges a body, or each body in the output of `quarantine export`.
func (c *checker) printAll(file string, text []byte) error {
	entries, lacking := splitExport(text)
	if len(entries) == 0 {
		return c.printOne(file, text)
	}
	for _, trouble := range lacking {
		c.skip(fmt.Errorf("%s: %s", file, outcome.Printable(trouble)))
	}
	for _, entry := range entries {
		if err := c.print(c.judge(file+":"+entry.ID, entry.Bytes(), api.Header(entry.Entry))); err != nil {
			return err
		}
	}
	return nil
}

// printOne judges a body, or the body in an answer of the HTTP API.
func (c *checker) printOne(file string, text []byte) error {
	answer := vendorapi.ParseReceived(text)
	if answer == nil {
		return c.print(c.judge(file, text, nil))
	}
	note := fmt.Sprintf("an answer of the HTTP API, receiptId %d; judged is its body", answer.ReceiptID)
	found := c.judge(file, answer.Body, nil)
	if c.json {
		fmt.Fprintf(c.stderr, "caddy green-api check: %s: %s\n", outcome.Printable(file), note)
		return c.print(found)
	}
	err := c.print(found)
	_, printErr := fmt.Fprintf(c.out, "            %s\n", note)
	return errors.Join(err, printErr)
}

// splitExport reads the output of `quarantine export`, or of the admin API, which also reports what
// could not be read. It returns no entries for any other text.
func splitExport(text []byte) (entries []api.Entry, lacking []string) {
	for line := range bytes.Lines(text) {
		var entry struct {
			api.Entry
			api.LineError
		}
		switch err := json.Unmarshal(line, &entry); {
		case err != nil:
			return nil, nil
		case entry.ID != "" && !entry.Received.IsZero():
			entries = append(entries, entry.Entry)
		case entry.Error != "":
			lacking = append(lacking, entry.Error)
		default:
			return nil, nil
		}
	}
	return entries, lacking
}

// judge judges a body. header is nil if it is not known.
func (c *checker) judge(file string, body []byte, header http.Header) finding {
	found := finding{File: file, Outcome: "pass", Errors: []notification.Fault{}}
	n, end, remark := c.rules.JudgeBody(body, header)
	if remark != nil {
		found.Reason = string(remark.Reason)
	}
	found.Type, found.Message, found.Instance = n.Type, n.Message, n.Instance
	if end == nil {
		return found
	}
	found.Reason = string(end.Reason)
	found.Outcome = "quarantine"
	if end.Outcome == outcome.Dropped {
		found.Outcome = "drop"
	} else {
		c.quarantined = true
	}
	switch end.Reason {
	case reason.TooLarge:
		found.Errors = append(found.Errors, notification.Fault{
			Keyword: "maxLength", Message: fmt.Sprintf("%d bytes; want at most %d", len(body), c.rules.MaxBody),
		})
	case reason.Encoding:
		found.Errors = append(found.Errors, notification.Fault{
			Keyword: "encoding", Message: "want no Content-Encoding, and one Content-Type: JSON in UTF-8",
		})
	}
	if end.Syntax != nil {
		found.Errors = append(found.Errors, notification.Fault{
			Pointer: end.Syntax.Pointer, Keyword: "syntax", Message: fmt.Sprintf("byte %d: %s", end.Syntax.Offset, end.Syntax.Cause),
		})
	}
	found.Errors = append(found.Errors, end.Faults...)
	return found
}

func (c *checker) print(found finding) error {
	if c.json {
		encoder := json.NewEncoder(outcome.JSONWriter{To: c.out})
		encoder.SetEscapeHTML(false)
		return encoder.Encode(found)
	}
	line := fmt.Sprintf("%-10s  %s", found.Outcome, outcome.Printable(found.File))
	if about := strings.TrimSpace(found.Type + " " + found.Message); about != "" {
		line += "  " + outcome.Printable(about)
	}
	if found.Reason != "" {
		line += "  (" + found.Reason + ")"
	}
	_, err := fmt.Fprintln(c.out, line)
	for _, fault := range found.Errors {
		where := fault.Pointer
		if where == "" {
			where = "/"
		}
		_, printErr := fmt.Fprintf(c.out, "            %s: %s: %s\n", outcome.Printable(where), outcome.Printable(fault.Keyword), fault.Message)
		err = errors.Join(err, printErr)
	}
	return err
}
