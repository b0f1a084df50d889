package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func doctorCommand(c Config) *cobra.Command {
	var file, adapter, format string
	var kinds []string
	for _, kind := range doctor.Kinds {
		kinds = append(kinds, string(kind))
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Finds mistakes that lose or expose notifications",
		Long: `Finds mistakes in a config, or on the machine that it is meant for, that lose or expose notifications,
and says how to fix each. It loads the config as 'caddy validate' does and starts nothing, so it can run
next to the edge. Run it as the user that runs the edge, with the same environment variables; as root
it also sees which process uses a port. Without --config it reads the Caddyfile in this directory, as
'caddy run' does.

On Linux it examines the machine, too: the systemd unit that runs the edge with that file, containers,
the mount and the free space of the directories of quarantine and queue, the clock, and the processes that
listen on the edge's ports. On macOS it only examines the free space.

With --format json it prints one object a line, with finding, level (error, warn or info), where and
fix. If the config does not load, fix is the cause. The findings are
` + wrapWords(kinds, 100) + `.
docs/troubleshooting.md explains each.

Exit status: 0 if it found nothing above info, 1 if it did, 2 if the command was not understood.`,
		Example: `  caddy green-api doctor --config /etc/caddy/Caddyfile
  caddy green-api doctor --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != formatText && format != formatJSON {
				return usageError(cmd, fmt.Errorf("invalid --format %q; want text or json", format))
			}
			if file == "" {
				file = "Caddyfile"
				if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
					return usageError(cmd, errors.New("no --config, and no Caddyfile in this directory; want --config with the file that the edge runs with"))
				}
			}
			found := diagnose(c, file, adapter)
			if format == formatJSON {
				printFindingsJSON(cmd.OutOrStdout(), found)
			} else {
				printFindings(cmd.OutOrStdout(), file, found)
			}
			for _, f := range found {
				if f.Level != doctor.Info {
					return errFindings
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "config file of the edge; without it, Caddyfile in this directory")
	cmd.Flags().StringVar(&adapter, "adapter", "", "config adapter for that file, unless its name shows it or it is JSON")
	cmd.Flags().StringVar(&format, "format", formatText, "output format, text or json")
	return cmd
}

// diagnose reads a config, loads it without starting it, and looks at the machine.
func diagnose(c Config, file, adapter string) []doctor.Finding {
	p := doctor.Patient{File: file, Machine: c.Machine(file)}
	text, err := readConfig(file, adapter)
	if err != nil {
		p.Refused = err
		return doctor.Diagnose(p)
	}
	written := doctor.Read(text)
	p.Written = &written
	config, err := c.Examine(text)
	if err != nil {
		p.Refused = err
	} else {
		p.Config = &config
	}
	return doctor.Diagnose(p)
}

// readConfig returns a config as JSON. It recognizes Caddyfiles as `caddy run` does.
func readConfig(file, adapter string) ([]byte, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	base := strings.ToLower(filepath.Base(file))
	if adapter == "" && (strings.HasPrefix(base, "caddyfile") || strings.HasSuffix(base, ".caddyfile")) && filepath.Ext(base) != ".json" {
		adapter = "caddyfile"
	}
	if adapter == "" {
		if err := json.Unmarshal(text, new(any)); err != nil {
			return nil, fmt.Errorf("config is not valid JSON: %w; a Caddyfile whose name neither begins with Caddyfile nor ends in .caddyfile wants --adapter caddyfile", err)
		}
		return text, nil
	}
	with := caddyconfig.GetAdapter(adapter)
	if with == nil {
		return nil, fmt.Errorf("unrecognized config adapter: %s", adapter)
	}
	adapted, _, err := with.Adapt(text, map[string]any{"filename": file})
	return adapted, err
}

func printFindings(w io.Writer, file string, found []doctor.Finding) {
	for _, f := range found {
		fmt.Fprintf(w, "%-5s  %s  %s\n", f.Level, f.Kind, outcome.Printable(f.Where))
		if f.Message != "" {
			fmt.Fprintf(w, "       %s\n", outcome.Printable(f.Message))
		}
		lead := "fix: "
		if f.Kind == doctor.DoesNotLoad {
			lead = "cause: "
		}
		fmt.Fprintf(w, "       %s%s\n", lead, outcome.Printable(f.Fix))
	}
	if len(found) == 0 {
		fmt.Fprintf(w, "nothing found in %s\n", outcome.Printable(file))
	}
}

func printFindingsJSON(w io.Writer, found []doctor.Finding) {
	encoder := json.NewEncoder(outcome.JSONWriter{To: w})
	encoder.SetEscapeHTML(false)
	for _, f := range found {
		_ = encoder.Encode(struct { // fails only if nobody reads the output
			Finding doctor.Kind  `json:"finding"`
			Level   doctor.Level `json:"level"`
			Where   string       `json:"where"`
			Fix     string       `json:"fix"`
		}{f.Kind, f.Level, f.Where, f.Fix})
	}
}

// wrapWords returns the words as a list, wrapped to a width.
func wrapWords(words []string, width int) string {
	var text strings.Builder
	at := 0
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if at+1+len(word) > width {
			text.WriteByte('\n')
			at = 0
		} else if i > 0 {
			text.WriteByte(' ')
			at++
		}
		text.WriteString(word)
		at += len(word)
	}
	return text.String()
}
