package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// adminFlags is what the commands have in common that ask an admin API.
type adminFlags struct {
	address, config, adapter string
	format                   string
}

// with adds the flags to a command.
func (a *adminFlags) with(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.format, "format", formatText, "text or json")
	return a.located(cmd)
}

// located adds the flags that say where the admin API is.
func (a *adminFlags) located(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&a.address, "address", "", "of the admin API, as localhost:2019 or unix//run/caddy/admin.sock")
	flags.StringVar(&a.config, "config", "", "config file that says where the admin API is")
	flags.StringVar(&a.adapter, "adapter", "", "of that file")
	return cmd
}

// find returns the address of the admin API. Its error is one of usage.
func (a *adminFlags) find() (address string, err error) {
	if a.format != formatText && a.format != formatJSON {
		return "", fmt.Errorf("invalid --format %q; want text or json", a.format)
	}
	return caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
}

// adminPatience is how long a command waits for an answer of the admin API that takes no time.
const adminPatience = 5 * time.Second

// within returns what ask returns, or an error if that takes too long: Caddy's client has no time-out.
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

// adminError is the refusal of a request by an admin API of Caddy.
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
	response, err := caddycmd.AdminAPIRequest(address, method, "/green_api/"+path, make(http.Header), body)
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
	status, _ := strconv.Atoi(said[1]) // three digits, by the expression
	return nil, &adminError{status, answer.Error}
}
