package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/notification"
)

func schemasCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schemas [<dir>]",
		Short: "Writes the built-in schemas to files",
		Long: `Writes the built-in JSON Schemas to a directory. It creates the directory if it is missing, and
overwrites no existing file. Without a directory it prints the schemas' names.

A changed or added file takes effect with 'validate { schemas <dir> }'. Remove the files that you did not
change: a built-in schema gets better with each version, a copy does not.`,
		Example: `  caddy green-api schemas
  caddy green-api schemas /etc/green-api/schemas`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := fs.Glob(notification.SchemaFiles(), "*.json")
			if err != nil {
				return err
			}
			if len(args) == 0 {
				for _, name := range files {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return nil
			}
			if err := writeSchemas(args[0], files); err != nil {
				return usageError(cmd, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %d schemas to %s\n", len(files), args[0])
			return nil
		},
	}
}

func writeSchemas(dir string, files []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // nothing secret
		return err
	}
	for _, name := range files { // check all names first: half a set is worse than none
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s is there already, and nothing is written over; want another directory", filepath.Join(dir, name))
		}
	}
	for _, name := range files {
		text, err := fs.ReadFile(notification.SchemaFiles(), name)
		if err != nil {
			return err
		}
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // nothing secret
		if err != nil {
			return err
		}
		_, err = file.Write(text)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}
