package greenapi

import (
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// shares is into how many parts the quarantine is divided: where several instances send, what the
// bodies of one of them cause fills at most one part. So nobody's faults take the room of another's.
const shares = 4

// severalFor is for how long an instance that has sent something is one of those that send.
const severalFor = 24 * time.Hour

// shareOf says whose share of the quarantine an entry counts against. That no handler took a
// notification is not its sender's doing, and counts against none. Bodies that name no instance have
// one share together.
func shareOf(e quarantine.Entry) (instance string, counted bool) {
	switch reason.Reason(e.Reason) {
	case reason.Malformed, reason.Encoding, reason.TooLarge, reason.Schema, reason.UnknownType, reason.UnknownMessage:
		return e.Instance, true
	}
	return "", false
}

// maxShare is how many bytes one share may have; 0 for no limit, where a single instance sends.
func (a *App) maxShare(instance string, now time.Time) int64 {
	if !a.severalSend(instance, now) {
		return 0
	}
	return a.Quarantine.MaxSize / shares
}

// warnOfSmallShares tells of blocks that keep longer bodies than a share has room for. Where several
// instances send, such a body can never be kept, and its queue stands still.
func (a *App) warnOfSmallShares() {
	for _, b := range a.blocks {
		if longest := b.handler.Validate.MaxKeptBody; longest >= a.Quarantine.MaxSize/shares {
			a.logger.Warn("a body as long as max_kept_body does not fit into a quarter of the quarantine, which is what one instance has",
				zap.String("name", b.handler.Name), zap.Int64("max_kept_body", longest), zap.Int64("max_size", a.Quarantine.MaxSize),
				zap.String("fix", "raise max_size above four times max_kept_body, or lower that"))
		}
	}
}

// severalSend reports whether more than one instance sends: those that have sent something of late,
// those that the config names, and the one that sends now.
func (a *App) severalSend(instance string, now time.Time) bool {
	known := newFew(2)
	known.add(instance)
	a.operator.seen.Recent(now.Add(-severalFor), known.add)
	for _, b := range a.blocks {
		if known.full() {
			break
		}
		for _, configured := range b.handler.configuredInstances() {
			known.add(configured)
		}
	}
	return known.full()
}

// few is a set of texts that takes no more than a few.
type few struct {
	of   map[string]bool
	most int
}

func newFew(most int) *few { return &few{make(map[string]bool), most} }

// add adds a text, unless it is empty, and reports whether there is room for more.
func (f *few) add(text string) bool {
	if text != "" && !f.full() {
		f.of[text] = true
	}
	return !f.full()
}

func (f *few) full() bool { return len(f.of) >= f.most }
