// Package console serves the operator's page, and what the page asks for. It knows net/http, and an API that it is
// handed as an http.Handler; what serves both, a command or a site, is not its business.
package console

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
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

	// ReadOnly allows no replay, no deletion, no export, and no order to the queue.
	ReadOnly bool

	// Bodies allows to open and export bodies, and to see phone numbers.
	Bodies bool

	// Sessions outlive a config. Default: new ones.
	Sessions *Sessions

	// Refused is told who failed to log in, as Client says it: five times a second at most, and once for each address. Default: nobody is told.
	Refused func(client string)

	// Client returns the address of who asks. Default: that of the connection.
	Client func(*http.Request) string

	// Door is what the page says of where it is: DoorCommand or DoorSite. Required.
	Door string

	// Host is what the page calls the machine. Default: its name.
	Host string

	// Version is that of this module.
	Version string
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

// MinToken is how long a token is at least, in bytes.
const MinToken = 22

// A Console serves the page.
type Console struct {
	o       Options // without the token
	byToken bool
	want    digest // of the token
	hosts   []string
	realm   digest // what a session has to be of
	cookie  string // the last part of its name
	once    chance // to log in with a token that is good for once
	static  *static
	login   *loginPage
	routes  map[string]map[string]route
	origin  http.CrossOriginProtection
}

// prefixes are the prefixes that need no escaping, wherever they stand.
var prefixes = regexp.MustCompile(`^/([A-Za-z0-9._~-]+/)*$`)

// New returns a console. Its errors name the option.
func New(o Options) (*Console, error) {
	o.Prefix = cmp.Or(o.Prefix, "/")
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Sessions == nil {
		o.Sessions = NewSessions()
	}
	if o.Refused == nil {
		o.Refused = func(string) {}
	}
	if o.Client == nil {
		o.Client = connected
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname() // the page says nothing then
	}
	c := &Console{o: o, routes: routes(), byToken: o.Access.Token != "", want: o.Sessions.digest(o.Access.Token)}
	c.o.Access.Token = ""
	for _, host := range o.Hosts {
		c.hosts = append(c.hosts, lower(host))
	}
	c.realm = o.Sessions.realmOf(o.Prefix, o.Access)
	c.cookie = cookieSuffix(c.hosts[0], o.Prefix)
	var err error
	if c.static, err = newStatic(files); err != nil {
		return nil, err
	}
	c.login, err = newLoginPage(o)
	return c, err
}

func (o *Options) check() error {
	ways := 0
	for _, set := range []bool{o.Access.Token != "", o.Access.User != nil, o.Access.Off} {
		if set {
			ways++
		}
	}
	switch {
	case o.API == nil:
		return errors.New("no API")
	case ways != 1:
		return errors.New("access: want one of a token, a user, and off")
	case o.Access.Token != "" && len(o.Access.Token) < MinToken:
		return fmt.Errorf("token: want at least %d characters", MinToken)
	case len(o.Hosts) == 0:
		return errors.New("hosts: want the names that the page is asked for by")
	case !prefixes.MatchString(o.Prefix) || strings.Contains(o.Prefix, "/./") || strings.Contains(o.Prefix, "/../"):
		return fmt.Errorf("prefix: invalid path %q; want one such as /console/", o.Prefix)
	case o.Door != DoorCommand && o.Door != DoorSite:
		return fmt.Errorf("door: invalid value %q", o.Door)
	}
	for _, host := range o.Hosts {
		if host == "" || strings.ContainsAny(host, "/ {}") || strings.Contains(strings.TrimPrefix(host, "*."), "*") {
			return fmt.Errorf("hosts: invalid name %q; want one such as hooks.example.com", host)
		}
		if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) { // no browser sends it like that
			return fmt.Errorf("hosts: invalid name %q; want it as in the header Host, such as xn--e1aybc.example.com", host)
		}
	}
	return nil
}

// connected returns the address that a request came from.
func connected(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// ServeHTTP answers a request. All that lets it in is checked before its path is looked at: a way to write a path that
// a check does not foresee cannot lead past the check.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeader(w.Header())
	if !c.isFor(r.Host) {
		refuse(w, http.StatusForbidden, "this name is not one that the page is served by")
		return
	}
	if !c.isOfOurs(r) {
		refuse(w, http.StatusForbidden, "a page of another origin asks")
		return
	}
	s := c.sessionOf(w, r)
	if s == nil {
		return
	}
	defer s.leave()
	if c.o.ReadOnly && !c.reads(r) {
		refuse(w, http.StatusForbidden, "read_only: nothing can be changed here")
		return
	}
	c.serve(w, r, s)
}

// sessionOf returns the session of a request. If there is none, it answers: whatever the path is, and one of the two ways
// to begin a session.
func (c *Console) sessionOf(w http.ResponseWriter, r *http.Request) *session {
	user := c.o.Access.Name
	if c.o.Access.User != nil {
		if user = printable(c.o.Access.User(r)); user == "" {
			refuse(w, http.StatusForbidden, "nobody is logged in")
			return nil
		}
	}
	if c.isLogin(r) {
		c.logIn(w, r)
		return nil
	}
	if s := c.known(r, user); s != nil {
		return s
	}
	switch rel, _ := c.relative(r); {
	case rel != "" || r.Method != http.MethodGet:
		refuse(w, http.StatusUnauthorized, "not logged in")
	case c.byToken:
		c.login.show(w, r, http.StatusUnauthorized, saidNothing)
	default:
		s := c.begin(w, r, user)
		if c.o.Access.User != nil && !s.again { // a link from elsewhere comes without the cookie, each time
			c.noteVisit(&call{w: w, r: r, s: s}, loggedIn)
		}
		return s
	}
	return nil
}

// relative returns the path of a request behind the prefix, which is "" for the page itself.
func (c *Console) relative(r *http.Request) (rel string, below bool) {
	if r.URL.Path+"/" == c.o.Prefix {
		return "", true
	}
	rel, below = strings.CutPrefix(r.URL.Path, c.o.Prefix)
	if !below {
		rel = r.URL.Path
	}
	return rel, below
}

// printable replaces what could be mistaken for something else in a log, and shortens what is too long for one.
func printable(text string) string {
	const most = 200
	var out strings.Builder
	for _, r := range text {
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		if out.Len()+utf8.RuneLen(r) > most { // the edge notes no more
			break
		}
		out.WriteRune(r)
	}
	return out.String()
}
