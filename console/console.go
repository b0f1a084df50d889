// Package console serves the operator's page, and what the page asks for. It knows net/http, and an API that it is
// handed as an http.Handler; what serves both, a command or a site, is not its business.
package console

import (
	"errors"
	"fmt"
	"net/http"
)

// Options say what a Console serves, and to whom.
type Options struct {
	// API serves the paths /green_api/…. Required.
	API http.Handler

	// Access says how one gets in. Required.
	Access Access

	// Hosts are the values of the header Host that are answered: with a port, only on that one; without, on any.
	// *.example.com is any one label before example.com. Required: a page of a stranger, whose name points to this
	// machine, would otherwise be let in.
	Hosts []string

	// Prefix is the path that the browser sees before all others. It begins and ends with a slash. Requests come with
	// it. Default: /.
	Prefix string

	// ReadOnly allows no replay, no deletion, and no order to the queue.
	ReadOnly bool

	// Bodies allows to open and to export bodies, and to see phone numbers.
	Bodies bool

	// Sessions outlive a config. Default: new ones.
	Sessions *Sessions

	// Refused is told of each login that fails, with what Client says. Default: nobody is.
	Refused func(client string)

	// Client returns the address of who asks. Default: that of the connection.
	Client func(*http.Request) string

	// Door is what the page says of where it is: DoorCommand or DoorSite. Required.
	Door string

	// Version is that of this module.
	Version string

	// Done ends the streams, such as when a config is replaced: a browser connects again. Default: they end by themselves.
	Done <-chan struct{}
}

// The doors.
const (
	DoorCommand = "command"
	DoorSite    = "site"
)

// Access is how one gets in: by Token, by User, or Off. Exactly one of them is set.
type Access struct {
	// Token is what has to be typed into the page, of at least MinToken bytes.
	Token string

	// Once lets Token log in once.
	Once bool

	// User returns who is logged in, "" if nobody is.
	User func(*http.Request) string

	// Off lets everybody in.
	Off bool

	// Name is who acts, for the log, with Token or Off.
	Name string
}

// MinToken is how long a token is, in bytes.
const MinToken = 22

// A Console serves the page.
type Console struct {
	options Options
}

// Sessions are those who are logged in.
type Sessions struct{}

// NewSessions returns sessions for consoles that are made one after another, or serve beside each other.
func NewSessions() *Sessions { return new(Sessions) }

// New returns a console. Its errors name the option.
func New(o Options) (*Console, error) {
	set := 0
	for _, is := range []bool{o.Access.Token != "", o.Access.User != nil, o.Access.Off} {
		if is {
			set++
		}
	}
	switch {
	case o.API == nil:
		return nil, errors.New("no API")
	case set != 1:
		return nil, errors.New("want one of a token, a user, and off")
	case o.Access.Token != "" && len(o.Access.Token) < MinToken:
		return nil, fmt.Errorf("token: want at least %d characters", MinToken)
	case len(o.Hosts) == 0:
		return nil, errors.New("no hosts")
	}
	return &Console{options: o}, nil
}

// ServeHTTP answers a request.
func (c *Console) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "not logged in", http.StatusUnauthorized)
}
