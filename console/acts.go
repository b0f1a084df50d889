package console

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An action is what the edge notes before it is done.
type action string

const (
	bodyOpened   action = "body opened"
	exported     action = "exported"
	replayed     action = "replayed"
	deleted      action = "deleted"
	phonesShown  action = "phones shown"
	queuePaused  action = "queue paused"
	queueResumed action = "queue resumed"
	queueDrained action = "queue drained"
	queueRetried action = "queue retried"
	queueSkipped action = "queue skipped"
	loggedIn     action = "login"
	loggedOut    action = "logout"
)

// page answers with the page.
func (c *Console) page(one *call) {
	if one.r.URL.Path != c.o.Prefix { // what is in it would be looked for one floor above
		c.toPage(one.w)
		return
	}
	c.static.index.serve(one.w, one.r, "no-cache")
}

func (c *Console) logOut(one *call) {
	c.noteVisit(one, loggedOut)
	one.s.logOut()
	c.setCookie(one.w, one.r, "")
	c.toPage(one.w)
}

// me says who is logged in, and what they may do.
func (c *Console) me(one *call) {
	role := "operator"
	if c.o.ReadOnly {
		role = "read_only"
	}
	answerJSON(one.w, http.StatusOK, map[string]any{
		"user": one.s.user, "role": role, "bodies": c.o.Bodies, "phones": c.seesPhones(one.s),
		"version": c.o.Version, "host": c.o.Host, "door": c.o.Door, "login": c.byToken,
	})
}

// phones shows phone numbers to a session, or hides them again.
func (c *Console) phones(one *call) {
	var show bool
	switch one.form.Get("show") {
	case "true":
		show = true
	case "false":
	default:
		refuse(one.w, http.StatusBadRequest, "show: want true or false")
		return
	}
	if show {
		if !c.o.Bodies {
			refuse(one.w, http.StatusForbidden, "bodies off: phone numbers are not shown here")
			return
		}
		if !c.note(one, phonesShown, -1) {
			return
		}
	}
	one.s.showPhones(show)
	answerJSON(one.w, http.StatusOK, map[string]bool{"phones": show})
}

// look answers as the edge does.
func (c *Console) look(one *call) {
	rel, _ := c.relative(one.r)
	c.relay(one, asking{method: http.MethodGet, path: rel[len("api/"):], query: one.form})
}

// live shows what ends as it ends, or once.
func (c *Console) live(one *call) {
	a := asking{method: http.MethodGet, path: "live", query: one.form, accept: "application/json"}
	if accepts(one.r, eventStream) {
		a.accept, a.raw, a.last = eventStream, true, one.r.Header.Get("Last-Event-ID")
		if _, err := strconv.ParseInt(a.last, 10, 64); err != nil {
			a.last = ""
		}
	}
	c.relay(one, a)
}

func (c *Console) search(one *call) {
	c.relay(one, asking{method: http.MethodPost, path: "quarantine/search", form: one.form})
}

// entry shows an entry without its body.
func (c *Console) entry(one *call) {
	c.relay(one, asking{method: http.MethodGet, path: "quarantine/" + one.id, query: url.Values{"body": {"false"}, "marks": {"true"}}})
}

// body shows the body of an entry.
func (c *Console) body(one *call) {
	if !c.note(one, bodyOpened, 1) {
		return
	}
	c.relay(one, asking{method: http.MethodGet, path: "quarantine/" + one.id, only: []string{"body", "body_base64"}})
}

// replay replays entries, or says which it would.
func (c *Console) replay(one *call) {
	a := asking{method: http.MethodPost, path: "quarantine/replay", form: one.form}
	if one.form.Get("dry_run") != "true" && !c.noteChoice(one, a, replayed) {
		return
	}
	c.relay(one, a)
}

// remove deletes entries, or says which it would.
func (c *Console) remove(one *call) {
	a := asking{method: http.MethodDelete, path: "quarantine", form: one.form}
	if one.form.Get("dry_run") != "true" && !c.noteChoice(one, a, deleted) {
		return
	}
	c.relay(one, a)
}

// export hands out entries with their bodies.
func (c *Console) export(one *call) {
	counting := asking{method: http.MethodPost, path: "quarantine/replay", form: one.form}
	if !c.noteChoice(one, counting, exported) {
		return
	}
	form := url.Values{"body": {"true"}}
	for name, values := range one.form {
		if name != "all" { // a list is of all without it
			form[name] = values
		}
	}
	c.relay(one, asking{
		method: http.MethodGet, path: "quarantine", form: form, raw: true,
		download: "quarantine-" + time.Now().UTC().Format("20060102T150405Z") + ".ndjson",
	})
}

// orders returns what gives the queue an order.
func orders(what action) func(*Console, *call) {
	return func(c *Console, one *call) {
		noted := what
		if what == queueDrained && one.form.Get("off") == "true" { // it takes in again
			noted = queueResumed
		}
		if !c.note(one, noted, -1, "name", "instance", "lane") {
			return
		}
		rel, _ := c.relative(one.r)
		c.relay(one, asking{method: http.MethodPost, path: rel[len("api/"):], form: one.form})
	}
}

// noteChoice is note for an act whose entries are chosen: the edge says how many they are.
func (c *Console) noteChoice(one *call, choice asking, what action) bool {
	form := url.Values{"dry_run": {"true"}}
	maps.Copy(form, choice.form)
	form.Set("dry_run", "true")
	choice.form = form
	text, err := c.ask(one, choice)
	if err != nil {
		f := asFailure(err)
		refuse(one.w, f.status, f.why)
		return false
	}
	var run struct{ Count, Skipped, Unreadable int }
	if json.Unmarshal(text, &run) != nil {
		refuse(one.w, http.StatusBadGateway, "the answer of the edge cannot be read")
		return false
	}
	if what != replayed {
		run.Count += run.Skipped + run.Unreadable
	}
	return c.note(one, what, run.Count)
}

// note has the edge note an act, and reports whether it did: what is not noted is not done. If not, it answers.
func (c *Console) note(one *call, what action, count int, target ...string) bool {
	if err := c.tell(one, what, count, target...); err != nil {
		f := asFailure(err)
		refuse(one.w, f.status, "not done, because it could not be noted: "+f.why)
		return false
	}
	return true
}

// noteVisit has the edge note that somebody comes or goes, which they do all the same if it does not: the page says then
// that the edge does not answer.
func (c *Console) noteVisit(one *call, what action) {
	const most = 2 * time.Second
	ctx, cancel := context.WithTimeout(one.r.Context(), most)
	defer cancel()
	visit := *one
	visit.r = one.r.WithContext(ctx)
	_ = c.tell(&visit, what, -1)
}

// tell tells the edge of an act. target are the parameters that say what it is about.
func (c *Console) tell(one *call, what action, count int, target ...string) error {
	form := url.Values{"action": {string(what)}}
	id := one.id
	if chosen := one.form["id"]; id == "" && len(chosen) == 1 {
		id = chosen[0]
	}
	said := map[string]string{"user": one.s.user, "client_ip": c.o.Client(one.r), "quarantine_id": id}
	for _, name := range target {
		said[name] = one.form.Get(name)
	}
	for name, value := range said {
		if value != "" {
			form.Set(name, printable(value))
		}
	}
	if count >= 0 {
		form.Set("count", strconv.Itoa(count))
	}
	_, err := c.ask(one, asking{method: http.MethodPost, path: "activity", form: form})
	return err
}
