package tell

import (
	"slices"
	"strings"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// troubles are what an endpoint has been told, or is about to be told, and may end some day. Each endpoint
// has its own: one that was not told of a trouble is not told of its end.
type troubles struct {
	of   map[string]*trouble
	over []string // the ended ones, in the order in which they ended
}

type trouble struct {
	under []key         // the groups that report it
	end   *outcome.Note // the note that it is over; nil while it lasts
}

// maxTroubles limits the troubles that are remembered per endpoint. The end of any more is not reported.
const maxTroubles = 10_000

// recovered is the key of the alert about ended troubles.
var recovered = key{reason.Recovered, notification.KindNone}

// begin records a trouble. One that had ended is in trouble again.
func (t *troubles) begin(n outcome.Note) {
	one := t.of[n.Trouble]
	if one == nil {
		if len(t.of) >= maxTroubles {
			return
		}
		if t.of == nil {
			t.of = make(map[string]*trouble)
		}
		one = new(trouble)
		t.of[n.Trouble] = one
	}
	if one.end != nil {
		one.end = nil
		t.over = slices.DeleteFunc(t.over, func(name string) bool { return name == n.Trouble })
	}
	if k := (key{n.Reason, n.Kind}); !slices.Contains(one.under, k) {
		one.under = append(one.under, k)
	}
}

// end records that a trouble is over, and reports whether it lasted until now.
func (t *troubles) end(n outcome.Note) bool {
	one := t.of[n.Trouble]
	if one == nil || one.end != nil {
		return false
	}
	one.end = &n
	t.over = append(t.over, n.Trouble)
	return true
}

// take removes the ended troubles and returns the group that reports them, nil if there are none.
func (t *troubles) take() *group {
	if len(t.over) == 0 {
		return nil
	}
	g := &group{key: recovered}
	for _, name := range t.over {
		end := *t.of[name].end
		delete(t.of, name)
		g.add(end)
		g.ends = append(g.ends, end)
	}
	g.more = saying(g.ends)
	t.over = nil
	return g
}

// putBack undoes take, except for troubles that have begun again.
func (t *troubles) putBack(g *group) {
	var over []string
	for _, end := range g.ends {
		if t.of[end.Trouble] == nil {
			t.of[end.Trouble] = &trouble{end: &end}
			over = append(over, end.Trouble)
		}
	}
	t.over = append(over, t.over...)
}

// saying returns the texts of the notes, each text once.
func saying(ends []outcome.Note) string {
	var said []string
	for _, end := range ends {
		if slices.Contains(said, end.More) {
			continue
		}
		if len(said) == maxInstances {
			said = append(said, "…")
			break
		}
		said = append(said, end.More)
	}
	return strings.Join(said, " ")
}

// InTrouble reports whether any endpoint knows of a trouble, so that the end of one is worth reporting.
func (d *Desk) InTrouble() bool { return d.alerts.inTrouble.Load() }

// over tells the endpoints that know of a trouble that it is over.
func (a *alerts) over(n outcome.Note) {
	n.Kind = recovered.typ
	left := false
	for _, e := range a.outbox {
		e.mu.Lock()
		if e.troubles.end(n) {
			e.wakeUp()
		}
		left = left || len(e.troubles.of) > len(e.troubles.over)
		e.mu.Unlock()
	}
	a.inTrouble.Store(left)
}
