package console

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// A route is what is done for a method and a path.
type route struct {
	serve func(*Console, *call)

	// Parameters that may be in the query of a GET or in the body of what changes something.
	query, form []string

	changes bool // something: not with ReadOnly
	bodies  bool // shows them: only with Bodies
}

// A call is a request that was let in.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	s    *session
	id   string     // in the path
	form url.Values // what is in the query or in the body
}

// Parameters that choose entries.
func filters(more ...string) []string {
	return append([]string{"reason", "type", "message", "instance", "chat", "name", "id", "since", "until", "limit"}, more...)
}

// routes are all paths of the page and its API. ID stands for an ID.
func routes() map[string]map[string]route {
	type methods = map[string]route
	order := func(what action, parameters ...string) methods {
		return methods{http.MethodPost: {serve: orders(what), form: parameters, changes: true}}
	}
	look := func(parameters ...string) methods {
		return methods{http.MethodGet: {serve: (*Console).look, query: parameters}}
	}
	return map[string]map[string]route{
		"":           {http.MethodGet: {serve: (*Console).page}, http.MethodHead: {serve: (*Console).page}},
		"logout":     {http.MethodPost: {serve: (*Console).logOut}},
		"api/me":     {http.MethodGet: {serve: (*Console).me}},
		"api/phones": {http.MethodPost: {serve: (*Console).phones, form: []string{"show"}}},

		"api/status":   look(),
		"api/activity": look(),
		"api/live":     {http.MethodGet: {serve: (*Console).live, query: []string{"since"}}},

		"api/quarantine/summary": look(),
		"api/quarantine/search":  {http.MethodPost: {serve: (*Console).search, form: filters("before")}},
		"api/quarantine/ID":      {http.MethodGet: {serve: (*Console).entry}},
		"api/quarantine/ID/body": {http.MethodPost: {serve: (*Console).body, bodies: true}},
		"api/quarantine/replay":  {http.MethodPost: {serve: (*Console).replay, form: filters("all", "dry_run", "recheck", "to"), changes: true}},
		"api/quarantine/export":  {http.MethodPost: {serve: (*Console).export, form: filters("all"), changes: true, bodies: true}},
		"api/quarantine":         {http.MethodDelete: {serve: (*Console).remove, form: filters("all", "dry_run"), changes: true}},

		"api/queue":        look("limit", "name", "instance"),
		"api/queue/state":  look(),
		"api/queue/ID":     look("limit"),
		"api/queue/pause":  order(queuePaused, "name", "instance"),
		"api/queue/resume": order(queueResumed, "name", "instance"),
		"api/queue/drain":  order(queueDrained, "off"),
		"api/queue/retry":  order(queueRetried, "lane", "name", "instance", "all"),
		"api/queue/skip":   order(queueSkipped, "lane", "seq"),
	}
}

// ids are the IDs of entries and of lanes.
var ids = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// find returns what is done for a path, nil if there is none, and the ID in it.
func (c *Console) find(rel string) (methods map[string]route, id string) {
	const placeholder = "ID"
	if methods = c.routes[rel]; methods != nil && !slices.Contains(strings.Split(rel, "/"), placeholder) {
		return methods, ""
	}
	parts := strings.Split(rel, "/")
	if len(parts) < 3 || len(parts) > 4 || !ids.MatchString(parts[2]) {
		return nil, ""
	}
	if c.routes[strings.Join(parts[:3], "/")] != nil { // summary is no ID, and it has no body that somebody opens
		return nil, ""
	}
	id, parts[2] = parts[2], placeholder
	return c.routes[strings.Join(parts, "/")], id
}

// reads reports whether a request only reads, or does what a session may do that only reads.
func (c *Console) reads(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	rel, below := c.relative(r)
	methods, _ := c.find(rel)
	found, is := methods[r.Method]
	return below && is && !found.changes
}

// serve does what a session asks for.
func (c *Console) serve(w http.ResponseWriter, r *http.Request, s *session) {
	rel, below := c.relative(r)
	asked, err := parse(r.URL.RawQuery)
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "the query cannot be read")
		return
	case !below:
		refuse(w, http.StatusNotFound, "no such page")
		return
	case hasChat(asked):
		refuse(w, http.StatusBadRequest, "chat: a phone number belongs in the body of a request, not in its URL")
		return
	}
	if name, is := strings.CutPrefix(rel, c.static.dir); is && c.static.files[name] != nil {
		if allowed(w, r, http.MethodGet, http.MethodHead) {
			c.static.files[name].serve(w, r, "private, max-age=31536000, immutable")
		}
		return
	}
	methods, id := c.find(rel)
	if methods == nil {
		refuse(w, http.StatusNotFound, "no such page")
		return
	}
	var names []string
	for method := range methods {
		names = append(names, method)
	}
	if !allowed(w, r, names...) {
		return
	}
	do := methods[r.Method]
	if do.bodies && !c.o.Bodies {
		refuse(w, http.StatusForbidden, "bodies off: they are not shown here")
		return
	}
	one := &call{w: w, r: r, s: s, id: id, form: asked}
	if rel != "" && !one.take(do) {
		return
	}
	do.serve(c, one)
}

// hasChat reports whether a query names a chat, or looks as if it were meant to.
func hasChat(asked url.Values) bool {
	for name := range asked {
		if lower(strings.TrimSpace(name)) == "chat" {
			return true
		}
	}
	return false
}

// allowed reports whether a request has one of some methods. If not, it answers.
func allowed(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	slices.Sort(methods)
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, "method not allowed")
	return false
}

// mostAsked is how long a body may be, in bytes: some 30,000 IDs.
const mostAsked = 1 << 20

// take takes in the parameters of a call, and refuses those that nobody knows. Those of a GET are in its query, all others
// in the body.
func (one *call) take(do route) bool {
	known := do.query
	if one.r.Method != http.MethodGet {
		if len(one.form) > 0 {
			refuse(one.w, http.StatusBadRequest, "want the parameters in the body")
			return false
		}
		form, err := readForm(one.w, one.r, mostAsked)
		if err != nil {
			f := asFailure(err)
			refuse(one.w, f.status, f.why)
			return false
		}
		one.form, known = form, do.form
	}
	for name := range one.form {
		if !slices.Contains(known, name) {
			refuse(one.w, http.StatusBadRequest, printable(name)+": unknown parameter")
			return false
		}
	}
	return true
}
