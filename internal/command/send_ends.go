package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// edgeCounts is the part of /green_api/status that send reads.
type edgeCounts struct {
	Outcomes  map[outcome.Outcome]int64 `json:"outcomes"`
	Instances []struct {
		Instance string                    `json:"instance"`
		Outcomes map[outcome.Outcome]int64 `json:"outcomes"`
	} `json:"instances"`
}

// ends is what became of the acknowledged notifications. Only the admin API of the edge can say it: the
// sender sees a 200 whether a notification is delivered or quarantined.
type ends struct {
	known                           bool
	delivered, quarantined, dropped int
	why                             error  // why it is not known
	admin                           string // address of the admin API, if the command line has it
}

// endWatch reads the counts of the admin API before and after sending.
type endWatch struct {
	said    string // address on the command line; may be ""
	address string
	before  edgeCounts
	err     error // why the counts before are not known
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
	return counts, nil
}

// end returns what became of the acknowledged notifications. instances are the instances that they
// name, or none if some name no instance.
func (w *endWatch) end(acknowledged int, instances map[string]bool) ends {
	if w.err != nil {
		return ends{why: w.err}
	}
	after, err := w.counts()
	if err != nil {
		return ends{why: err}
	}
	// The sums include notifications that others sent meanwhile. The counts of instances lack bodies of
	// which the edge knew no instance.
	for _, e := range []ends{endsBetween(w.before.of(instances), after.of(instances)), endsBetween(w.before.Outcomes, after.Outcomes)} {
		if e.delivered+e.quarantined+e.dropped == acknowledged {
			e.known, e.admin = true, w.said
			return e
		}
	}
	return ends{why: errOthersCame}
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

// print prints it as one line.
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

// instanceIDs returns the instances that the planned notifications name, or nil if a notification
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
