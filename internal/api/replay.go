package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Result is what became of one entry in a replay.
type Result struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
	Type     string `json:"type"`
	Outcome  string `json:"outcome"` // delivered, failed, OutcomeKept or OutcomeSkipped
	Reason   string `json:"reason"`
	Error    string `json:"error,omitempty"`
}

// More outcomes of a replay, besides delivered and failed.
const (
	OutcomeKept    = "kept"    // its body is still invalid
	OutcomeSkipped = "skipped" // its reason is replayed only when named
)

// replaying is how to replay.
type replaying struct {
	recheck bool
	to      string // name of a block; "" for the entry's own
}

// replay delivers entries and deletes those that a handler took.
func (e *Edge) replay(w http.ResponseWriter, r *http.Request) error {
	p, store, release, err := e.chosen(r, "recheck", "all", OptionTo, optionDryRun)
	if err != nil {
		return err
	}
	defer release()
	if p.IsEmpty() && !p.says("all") {
		return badRequest(errors.New("nothing said of what to replay; want a filter, or all=true"))
	}
	how := replaying{recheck: p.says("recheck"), to: p.options.Get(OptionTo)}
	if how.to != "" && !slices.Contains(e.Blocks, how.to) {
		return badRequest(fmt.Errorf("to: the config that runs has no green_api block named %q; want one of %s", how.to, e.blockNames()))
	}
	if p.says(optionDryRun) {
		return p.dryRun(w, store, func(entry quarantine.Entry) bool { return !skips(&p.Filter, entry) })
	}
	out := answer(w)
	p.Unreadable = out.unreadable
	var ends ending
	defer func() { e.Activity.Note(Action{At: time.Now().UTC(), Action: ReplayEnded, Replay: &ends.Replayed}) }()
	err = inOrder(r.Context(), &p.Filter, store, func(entry quarantine.Entry) {
		line := e.replayChosen(&p.Filter, store, entry, how)
		if line != nil {
			_ = out.send(line) // the client may be gone; what was started continues
			ends.add(line)
		}
	})
	if ends.Delivered > 0 {
		err = errors.Join(err, store.Scrub())
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return out.end(err)
	}
	for _, id := range p.Missing(store) {
		line := Result{ID: id, Outcome: string(outcome.Failed), Reason: reason.NotFound, Error: quarantine.ErrNotFound.Error()}
		_ = out.write(line)
		ends.add(line)
	}
	return nil
}

// ending counts how the entries of a replay end.
type ending struct {
	mu sync.Mutex
	Replayed
}

func (n *ending) add(line any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	result, _ := line.(Result) // or the line of an entry that cannot be read
	switch result.Outcome {
	case string(outcome.Delivered):
		n.Delivered++
	case string(outcome.Failed):
		n.Failed++
	case OutcomeKept:
		n.Kept++
	case OutcomeSkipped:
		n.Skipped++
	}
}

// replayChosen is replayOne for an entry that the filter selects, unless it is to be skipped.
func (e *Edge) replayChosen(f *quarantine.Filter, store *quarantine.Store, entry quarantine.Entry, how replaying) (line any) {
	if skips(f, entry) {
		return Result{ID: entry.ID, Instance: entry.Instance, Type: entry.Type, Outcome: OutcomeSkipped, Reason: entry.Reason}
	}
	return e.replayOne(store, entry.ID, how)
}

// skips reports whether an entry is skipped because it is replayed only when its reason or ID is named, and
// neither is. Handlers cannot read such a body, or not all read it the same way.
func skips(f *quarantine.Filter, entry quarantine.Entry) bool {
	switch reason.Reason(entry.Reason) {
	case reason.Malformed, reason.Encoding, reason.TooLarge:
		return !f.Wants("reason", entry.Reason) && !f.Wants("id", entry.ID)
	}
	return false
}

func (e *Edge) blockNames() string { return strings.Join(e.Blocks, ", ") }

// replayers is how many entries are replayed at once. Those of one instance are replayed in order.
const replayers = 8

// inOrder calls do with each entry that the filter selects, several at once, but those of one instance one
// after another. It returns when every call has returned.
func inOrder(ctx context.Context, f *quarantine.Filter, store *quarantine.Store, do func(quarantine.Entry)) error {
	var queues [replayers]chan quarantine.Entry
	var working sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan quarantine.Entry)
		working.Go(func() {
			for entry := range queues[i] {
				do(entry)
			}
		})
	}
	seed := maphash.MakeSeed()
	err := f.Each(store, func(entry quarantine.Entry) error {
		select {
		case queues[maphash.String(seed, entry.Instance)%replayers] <- entry:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for _, queue := range queues {
		close(queue)
	}
	working.Wait()
	return err
}

// replayOne delivers one entry, and returns the line with the result, nil if another replay is working on
// the entry or has delivered it.
func (e *Edge) replayOne(store *quarantine.Store, id string, how replaying) (line any) {
	if _, taken := e.Replays.inHand.LoadOrStore(id, nil); taken {
		return nil
	}
	defer e.Replays.inHand.Delete(id)
	entry, err := store.Get(id)
	switch {
	case errors.Is(err, quarantine.ErrNotFound):
		return nil
	case err != nil:
		return LineError{err.Error(), id}
	}
	result := Result{ID: id, Instance: entry.Instance, Type: entry.Type, Outcome: string(outcome.Failed)}
	block := cmp.Or(how.to, entry.Name)
	if !slices.Contains(e.Blocks, block) {
		result.Reason = reason.NoHandler
		result.Error = fmt.Sprintf("the config that runs has no green_api block named %q; add --to NAME, one of: %s", entry.Name, e.blockNames())
		return result
	}
	if how.to == "" && !e.IsFor(block, entry.Instance) { // the name now belongs to another block
		result.Reason = reason.NoHandler
		result.Error = fmt.Sprintf("the green_api block named %q has no token for this instance and does not receive it; to replay it all the same, add --to NAME, one of: %s", entry.Name, e.blockNames())
		return result
	}
	end, tried := e.Replay(block, entry, how.recheck)
	result.Outcome, result.Reason = string(end.Outcome), string(end.Reason)
	switch end.Outcome {
	case outcome.Delivered:
		if _, err := store.Delete(id); err != nil {
			result.Error = "delivered, but still in the quarantine: " + err.Error()
		}
		return result
	case outcome.Quarantined, outcome.Dropped: // by recheck: no handler got it
		result.Outcome = OutcomeKept
	}
	result.Error = whyFailed(end.Err, tried)
	return result
}

// whyFailed names the handlers that did not take an entry, with the answer of each, once.
func whyFailed(err error, tried []string) string {
	slices.Sort(tried)
	why := strings.Join(slices.Compact(tried), ", ")
	switch {
	case err == nil || strings.Contains(why, err.Error()):
		return why
	case why == "":
		return err.Error()
	}
	return err.Error() + "; " + why
}
