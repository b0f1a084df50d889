package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

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
