package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// edgeCounts is the part of /green_api/status that send reads.
type edgeCounts struct {
	Outcomes  map[outcome.Outcome]int64 `json:"outcomes"`
	Instances []struct {
		Instance string                    `json:"instance"`
		Outcomes map[outcome.Outcome]int64 `json:"outcomes"`
	} `json:"instances"`
	Waiting int              `json:"waiting"`
	Queue   *api.QueueStatus `json:"queue"`

	at time.Time // when they were read
}

// defaultWait is how long send waits for the edge's queue.
const defaultWait = 10 * time.Minute

// ends is what became of the acknowledged notifications. Only the edge's admin API knows: the
// sender sees a 200 whether a notification is delivered or quarantined.
type ends struct {
	known                           bool
	delivered, quarantined, dropped int
	why                             error  // why that is unknown
	admin                           string // address of the admin API, if given on the command line

	handled time.Duration // from the first attempt until none waited for a handler; 0 if unknown
	left    int           // how many the edge had not handled when that was waited for no longer
}

// endWatch reads the counts of the admin API before and after sending.
type endWatch struct {
	said    string // address on the command line; may be ""
	address string
	before  edgeCounts
	err     error // why the counts before sending are unknown

	wait   time.Duration  // how long to wait for the edge's queue
	onWait func(left int) // called while waiting; nil: not called
}

var (
	errNobodyAsked = errors.New("--admin ADDRESS asks the edge's admin API")
	errOthersCame  = errors.New("what the admin API has counted does not add up to it: other notifications came at the same time, some came twice, or it is the admin API of another server")
)

// watchEnds reads the counts before sending to a URL. Without an address, it asks the admin API at
// Caddy's default address, if the URL is on this machine.
func watchEnds(target, address string) *endWatch {
	if address == "" && !onLoopback(target) {
		return &endWatch{err: errNobodyAsked}
	}
	w := &endWatch{said: address}
	if w.address, w.err = caddycmd.DetermineAdminAPIAddress(address, nil, "", ""); w.err == nil {
		w.before, w.err = w.counts()
	}
	return w
}

// onLoopback reports whether a URL is on this machine.
func onLoopback(target string) bool {
	u, err := url.Parse(target)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
}

// counts reads the current counts.
func (w *endWatch) counts() (edgeCounts, error) {
	counts, err := within(adminPatience, func() (edgeCounts, error) { return askCounts(w.address) })
	if err != nil {
		err = fmt.Errorf("admin API on %s: %w; --admin says where it is", w.address, err)
	}
	return counts, err
}

func askCounts(address string) (counts edgeCounts, err error) {
	response, err := askAdmin(address, http.MethodGet, "status", nil)
	if err != nil {
		return counts, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<20)).Decode(&counts); err != nil || counts.Outcomes == nil {
		return counts, errors.New("its /green_api/status counts no outcomes")
	}
	counts.at = time.Now()
	return counts, nil
}

// end waits until the edge has handled all, and returns what became of the acknowledged notifications.
// instances are the instances that they name; none if any of them names no instance.
func (w *endWatch) end(ctx context.Context, report *sender.Report, instances map[string]bool) ends {
	if w.err != nil {
		return ends{why: w.err}
	}
	after, err := w.settled(ctx, report.Acknowledged)
	if err != nil {
		return ends{why: err}
	}
	if w.taken(after) < report.Acknowledged {
		return ends{why: errOthersCame}
	}
	if left := after.left(); left > 0 {
		return ends{why: fmt.Errorf("the edge's queue still has %s; --wait says how long to wait for them", countOf(left, "notification")), left: left}
	}
	result := ends{why: errOthersCame}
	// The sums include notifications that others sent meanwhile. The counts of instances lack bodies
	// whose instance the edge did not know.
	for _, e := range []ends{endsBetween(w.before.of(instances), after.of(instances)), endsBetween(w.before.Outcomes, after.Outcomes)} {
		if e.sum() == report.Acknowledged {
			e.known, e.admin = true, w.said
			result = e
			break
		}
	}
	if report.Acknowledged > 0 {
		result.handled = report.LastAcknowledged
		if after.Queue != nil {
			result.handled = after.at.Sub(report.Began)
		}
	}
	return result
}

// settled asks until the edge has handled everything, and returns the last counts. It ends early after
// w.wait, with ctx, and if this edge cannot have taken the notifications: its queue is not worth waiting for.
func (w *endWatch) settled(ctx context.Context, acknowledged int) (last edgeCounts, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.wait)
	defer cancel()
	for began := time.Now(); ; {
		asked := time.Now()
		counts, err := w.counts()
		if err == nil {
			last = counts
			if last.left() == 0 || w.taken(last) < acknowledged {
				return last, nil
			}
			if w.onWait != nil {
				w.onWait(last.left())
			}
		}
		// The time should be right within 5 %, but asking must not be a load itself.
		now := time.Now()
		interval := min(max(now.Sub(began)/20, 10*now.Sub(asked), 20*time.Millisecond), time.Second)
		if last.Queue == nil || !pauseFor(ctx, interval) { // an edge with a queue may answer next time
			return last, err
		}
	}
}

// left returns how many notifications the edge has still to handle. Without a queue it is none, whatever
// waits: no handler is asked any more about what was answered 200.
func (c edgeCounts) left() int {
	if c.Queue == nil {
		return 0
	}
	return max(c.Queue.Entries, c.Waiting)
}

// taken returns at most how many notifications the edge has taken since the counts before sending. It
// counts one that was in the queue twice once that is handled.
func (w *endWatch) taken(after edgeCounts) int {
	return endsBetween(w.before.Outcomes, after.Outcomes).sum() + int(after.queued()-w.before.queued())
}

// queued returns how many notifications have been put into the queue.
func (c edgeCounts) queued() int64 {
	if c.Queue == nil {
		return 0
	}
	return c.Queue.PutTotal
}

// of returns the sum of the outcomes of some instances.
func (c edgeCounts) of(instances map[string]bool) map[outcome.Outcome]int64 {
	sum := make(map[outcome.Outcome]int64)
	for _, seen := range c.Instances {
		if instances[seen.Instance] {
			for end, n := range seen.Outcomes {
				sum[end] += n
			}
		}
	}
	return sum
}

func endsBetween(before, after map[outcome.Outcome]int64) ends {
	since := func(end outcome.Outcome) int { return int(after[end] - before[end]) }
	return ends{delivered: since(outcome.Delivered), quarantined: since(outcome.Quarantined), dropped: since(outcome.Dropped)}
}

// sum returns how many notifications have ended.
func (e ends) sum() int { return e.delivered + e.quarantined + e.dropped }

// print prints the ends as one line.
func (e ends) print(out io.Writer) error {
	if !e.known {
		_, err := fmt.Fprintf(out, "how many of those were delivered and how many quarantined is not known: %s\n", outcome.Printable(e.why.Error()))
		return err
	}
	line := fmt.Sprintf("of those, %d delivered, %d quarantined", e.delivered, e.quarantined)
	if e.dropped > 0 {
		line += fmt.Sprintf(", %d dropped", e.dropped)
	}
	if e.quarantined > 0 {
		line += "; see 'caddy green-api quarantine list"
		if e.admin != "" {
			line += " --address " + e.admin
		}
		line += "'"
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// instanceIDs returns the instances that the planned notifications name, or nil if any of them
// names none.
func (p *sendPlan) instanceIDs() map[string]bool {
	ids := make(map[string]bool)
	if !p.asIs {
		for i := range p.instances {
			ids[instanceID(i)] = true
		}
		return ids
	}
	for _, n := range p.bodies {
		id := instanceIn(n.Body)
		if id == "" {
			return nil
		}
		ids[id] = true
	}
	return ids
}

// instanceIn returns the instance that a body names, or "".
func instanceIn(body []byte) string {
	n, err := notification.Parse(body)
	if err != nil {
		return ""
	}
	return n.Instance
}

// checkAdmin refuses an empty --admin.
func checkAdmin(cmd *cobra.Command, address string) error {
	if address == "" && cmd.Flags().Changed("admin") {
		return fmt.Errorf("--admin: %w", api.ErrEmptyValue)
	}
	return nil
}
