package tell

import (
	"slices"
	"strings"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// troubles are what an endpoint was told of, or is about to be told of, and may be over some day. Each
// endpoint has its own: one that was told nothing of a trouble hears nothing of its end.
type troubles struct {
	of   map[string]*trouble
	over []string // those that are over, in the order of their end
}

type trouble struct {
	under []key         // the groups that tell of it
	end   *outcome.Note // says that it is over; nil while it lasts
}

// maxTroubles is how many troubles of one endpoint are remembered. Of more the end is not told.
const maxTroubles = 10_000

// recovered is the key of the alert that troubles are over.
var recovered = key{reason.Recovered, notification.KindNone}

// begin notes a trouble. One that was over lasts again.
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

// end notes that a trouble is over, and reports whether it lasted.
func (t *troubles) end(n outcome.Note) bool {
	one := t.of[n.Trouble]
	if one == nil || one.end != nil {
		return false
	}
	one.end = &n
	t.over = append(t.over, n.Trouble)
	return true
}

// take takes out the troubles that are over. It returns the group that tells of it, nil if there are none.
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

// putBack undoes take, but for troubles that have begun again.
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

// saying returns what the ends have to say, each thing once.
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

// InTrouble reports whether some endpoint knows of a trouble, so that it is worth saying that one is over.
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
