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

// adminError is what an admin API of Caddy says to a request that it does not obey.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

// refusedByAdmin is how Caddy's client tells of an answer that is an error.
var refusedByAdmin = regexp.MustCompile(`(?s)^caddy responded with error: HTTP (\d{3}): (.*)$`)

// askAdmin makes a request of the admin API on an address. The error is an *adminError if it answers as
// an admin API of Caddy does.
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
	status, _ := strconv.Atoi(said[1]) // of three digits
	return nil, &adminError{status, answer.Error}
}
