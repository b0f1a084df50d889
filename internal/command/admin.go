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
	"regexp"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// adminFlags are the flags of commands that use an admin API.
type adminFlags struct {
	address, config, adapter string
	format                   string

	troubled bool // a line of an answer was about something that went wrong
}

// with adds the flags to a command.
func (a *adminFlags) with(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.format, "format", formatText, "text or json")
	return a.located(cmd)
}

// located adds the flags that locate the admin API.
func (a *adminFlags) located(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&a.address, "address", "", "address of the admin API, such as localhost:2019 or unix//run/caddy/admin.sock")
	flags.StringVar(&a.config, "config", "", "config file that says where the admin API is")
	flags.StringVar(&a.adapter, "adapter", "", "config adapter for that file")
	return cmd
}

// find returns the address of the admin API. Its errors are usage errors.
func (a *adminFlags) find() (address string, err error) {
	if a.format != formatText && a.format != formatJSON {
		return "", fmt.Errorf("invalid --format %q; want text or json", a.format)
	}
	return caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
}

// adminPatience is how long a command waits for an answer that the admin API can give at once.
const adminPatience = 5 * time.Second

// within returns what ask returns, or an error if that takes too long: Caddy's client has no timeout.
func within[T any](patience time.Duration, ask func() (T, error)) (T, error) {
	type answer struct {
		said T
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		said, err := ask()
		got <- answer{said, err}
	}()
	select {
	case a := <-got:
		return a.said, a.err
	case <-time.After(patience):
		var none T
		return none, fmt.Errorf("no answer within %s", patience)
	}
}

// adminError is the error of a Caddy admin API that refused a request.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

// refusedByAdmin matches the error of Caddy's client for an answer that is an error.
var refusedByAdmin = regexp.MustCompile(`(?s)^caddy responded with error: HTTP (\d{3}): (.*)$`)

// askAdmin sends a request to the admin API at an address. The error is an *adminError if an admin API
// of Caddy refused the request.
func askAdmin(address, method, path string, body io.Reader) (*http.Response, error) {
	return askAdminFor("", address, method, path, body)
}

// askAdminFor is askAdmin for an answer of a media type.
func askAdminFor(accept, address, method, path string, body io.Reader) (*http.Response, error) {
	header := make(http.Header)
	if accept != "" {
		header.Set("Accept", accept)
	}
	response, err := caddycmd.AdminAPIRequest(address, method, "/green_api/"+path, header, body)
	if err == nil {
		return response, nil
	}
	said := refusedByAdmin.FindStringSubmatch(err.Error())
	if said == nil {
		return nil, err
	}
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(said[2]), &answer) != nil || answer.Error == "" {
		return nil, fmt.Errorf("it answers with status %s, and is no admin API of a Caddy with green_api", said[1])
	}
	status, _ := strconv.Atoi(said[1]) // the regexp matches three digits
	return nil, &adminError{status, answer.Error}
}

// ask sends a request to the admin API and hands each line of the answer to do.
func (a *adminFlags) ask(cmd *cobra.Command, method, path string, query url.Values, do func(line []byte) error) error {
	address, err := a.find()
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
			if a.isTrouble(cmd, line) {
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

// notThere says how to name another admin API. Where --address is something else, the flag is --admin.
func notThere(cmd *cobra.Command, address string, err error) error {
	flag := "address"
	if cmd.Flags().Lookup("admin") != nil {
		flag = "admin"
	}
	return fmt.Errorf("admin API on %s: %w; if it is elsewhere, say so with --config FILE, that of the Caddy that runs, or --%s", address, err, flag)
}

// noAnswer ends a command whose request failed.
func noAnswer(cmd *cobra.Command, address string, err error) error {
	said, ok := errors.AsType[*adminError](err)
	switch {
	case !ok || said.text == api.ErrNoEdge.Error():
		return usageError(cmd, notThere(cmd, address, err))
	case said.status == http.StatusBadRequest, said.text == api.ErrNoQueue.Error():
		return usageError(cmd, said)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), outcome.Printable(said.text))
	if said.status == http.StatusNotFound || said.status == http.StatusConflict {
		return errFindings
	}
	return exit(cmd)
}

// isTrouble reports whether a line is about something that went wrong. If so, it prints the line.
func (a *adminFlags) isTrouble(cmd *cobra.Command, line []byte) bool {
	var trouble api.LineError
	if !bytes.HasPrefix(line, []byte(`{"error":`)) || json.Unmarshal(line, &trouble) != nil {
		return false
	}
	a.tell(cmd, trouble)
	return true
}

// tell prints what went wrong.
func (a *adminFlags) tell(cmd *cobra.Command, trouble api.LineError) {
	a.troubled = true
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), outcome.Printable(trouble.Error))
}

// finish ends a command, with exit code 2 if a line was about something that went wrong.
func (a *adminFlags) finish(cmd *cobra.Command, err error) error {
	if a.troubled && (err == nil || errors.Is(err, errFindings)) {
		return exit(cmd)
	}
	return err
}
