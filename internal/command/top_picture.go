package command

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// say sums an overview up in a sentence.
func (o *overview) say(now time.Time) {
	o.Sentence, o.Well = "All is well.", true
	if all := o.Status.Standing; len(all) > 0 {
		o.Sentence, o.Well = standsText(&all[0], now), false
		if others := len(all) - 1; others == 1 {
			o.Sentence += " 1 other stands still, too."
		} else if others > 1 {
			o.Sentence += fmt.Sprintf(" %d others stand still, too.", others)
		}
		return
	}
	if trouble := troubleText(&o.Status, now); trouble != "" {
		o.Sentence, o.Well = trouble, false
	}
}

// standsText says who stands still, since when and why.
func standsText(s *api.Standing, now time.Time) string {
	text := outcome.Clip(s.Instance) + " stands still for " + roughly(now.Sub(s.Since)) + ": "
	handler, said := outcome.Clip(s.Handler), outcome.Clip(s.Said)
	status, _, _ := strings.Cut(said, " ")
	switch _, err := strconv.Atoi(status); {
	case len(s.Handlers) > 1 && err == nil:
		text += fmt.Sprintf("none of %d handlers takes its notification, %s answered %s last", len(s.Handlers), handler, status)
	case handler != "" && err == nil:
		text += handler + " answers " + status
	case handler != "" && said != "":
		text += handler + ": " + said
	case handler != "" && s.Reason == "":
		text += handler + " has its notification and does not answer"
	case s.Reason == "not_now" && s.Attempts == 0:
		text += "it waits for a place at a handler"
	default:
		text += outcome.Clip(string(s.Reason))
	}
	if s.Attempts > 1 {
		text += fmt.Sprintf(", %d times", s.Attempts)
	}
	switch left := s.Next.Sub(now); {
	case s.Waiting:
		text += ". It is tried now."
	case s.Next.IsZero():
		text += "."
	case left > -5*time.Second:
		text += ". Next try in ~" + roughly(left) + "."
	default:
		text += ". It should have come again " + roughly(-left) + " ago."
	}
	return text
}

// troubleText says what else needs the operator, "" if nothing does.
func troubleText(s *api.Status, now time.Time) string {
	if q := s.Queue; q != nil {
		switch {
		case !q.Connected:
			return "The queue has lost its servers."
		case q.Draining:
			return "The queue is being drained: what comes is answered 503."
		case q.Paused:
			return "The queue is paused: something in it is not delivered."
		}
	}
	for _, block := range s.Blocks {
		for _, up := range block.Upstreams {
			if f := up.LastFault; f != nil && !f.At.Before(up.LastAsked) && now.Sub(f.At) < faultLasts {
				what := outcome.Clip(f.Error)
				if f.Status != 0 {
					what = "it answered " + strconv.Itoa(f.Status)
				}
				return fmt.Sprintf("Handler %s did not take its last notification %s ago: %s.", outcome.Clip(up.Address), roughly(now.Sub(f.At)), what)
			}
			if !up.Healthy {
				return "Handler " + outcome.Clip(up.Address) + " is not healthy."
			}
		}
	}
	for _, r := range s.Receivers {
		if r.State == "failing" {
			return fmt.Sprintf("Notifications of %s cannot be received for %s: %s.", outcome.Clip(r.Instance), roughly(now.Sub(r.Since)), outcome.Clip(string(r.Reason)))
		}
	}
	if q := s.Quarantine; q.MaxBytes > 0 && q.Bytes > q.MaxBytes/5*4 {
		return "The quarantine is nearly full: " + sizeOf(q.Bytes) + " of " + sizeOf(q.MaxBytes) + "."
	}
	for _, a := range s.Alerts {
		if !a.Sent && s.AlertsPending > 0 {
			return fmt.Sprintf("An alert cannot be sent to %s for %s: %s.", outcome.Clip(a.Endpoint), roughly(now.Sub(a.Failing)), outcome.Clip(a.Error))
		}
	}
	return ""
}

// faultLasts is how long a handler that is not asked again counts as one that failed.
const faultLasts = 10 * time.Minute

// roughly returns a duration as one says it.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(0, d); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
}

// Colours of a terminal.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

// A picture is an overview as lines that fit a terminal.
type picture struct {
	width  int
	colour bool
	lines  []string
}

// line adds a text that may need several lines.
func (p *picture) line(colour, text string) {
	line := ""
	for word := range strings.FieldsSeq(outcome.Printable(text)) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > p.width {
			p.add(colour, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	p.add(colour, line)
}

// add adds a line, and cuts off what does not fit.
func (p *picture) add(colour, line string) {
	line = outcome.Printable(line)
	if runes := []rune(line); len(runes) > p.width {
		line = string(runes[:p.width-1]) + "…"
	}
	if p.colour && colour != "" && line != "" {
		line = "\x1b[" + colour + "m" + line + "\x1b[0m"
	}
	p.lines = append(p.lines, line)
}

// row is a line that says something of one thing.
func (p *picture) row(name, text string) { p.add("", fmt.Sprintf("%-10s  %s", name, text)) }

// mostRows is how many rows a table has.
const mostRows = 15

// table adds rows of cells, the first of which are the names.
func (p *picture) table(rows [][]string) {
	hidden := max(0, len(rows)-1-mostRows)
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, cells := range rows[:len(rows)-hidden] {
		for i, cell := range cells {
			cells[i] = cmp.Or(outcome.Printable(cell), "-")
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	_ = table.Flush() // never fails
	p.add("", "")
	for i, line := range strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n") {
		p.add(map[bool]string{true: bold}[i == 0], strings.TrimRight(line, " "))
	}
	if hidden > 0 {
		p.add("", fmt.Sprintf("… and %d more", hidden))
	}
}

func (p *picture) draw(o *overview, now time.Time) {
	s := &o.Status
	colour := green
	switch {
	case len(s.Standing) > 0:
		colour = red
	case !o.Well:
		colour = yellow
	}
	p.line(colour, o.Sentence)
	p.add("", "")
	p.row("now", ratesText(o.Rates))
	p.row("deliveries", fmt.Sprintf("p50 %s, p99 %s; %s for a handler", milliseconds(o.P50), milliseconds(o.P99), waitText(o.Waiting)))
	p.row("quarantine", fmt.Sprintf("%s, %s of %s", entriesText(s.Quarantine.Entries), sizeOf(s.Quarantine.Bytes), sizeOf(s.Quarantine.MaxBytes)))
	if q := s.Queue; q != nil {
		p.row("queue", queueText(q))
	}
	p.row("alerts", alertsText(s, now))
	if n := len(s.Warnings); n > 0 {
		p.row("warnings", fmt.Sprintf("%d at load, the first: %s", n, s.Warnings[0].Message))
	}
	several := len(s.Blocks) > 1
	if len(s.Standing) > 0 {
		p.table(standingRows(s.Standing, several, now))
	}
	if rows := handlerRows(s.Blocks, several, now); len(rows) > 1 {
		p.table(rows)
	}
}

// ratesText says how many end in which way a second, the most first.
func ratesText(rates map[outcome.Outcome]float64) string {
	sum, ends := 0.0, slices.Sorted(maps.Keys(rates))
	slices.SortStableFunc(ends, func(x, y outcome.Outcome) int { return cmp.Compare(rates[y], rates[x]) })
	var words []string
	for _, end := range ends {
		sum += rates[end]
		if rates[end] > 0 {
			words = append(words, outcome.Clip(string(end))+" "+rateText(rates[end]))
		}
	}
	return strings.TrimSuffix(rateText(sum)+"/s: "+strings.Join(words, ", "), ": ")
}

func rateText(rate float64) string {
	switch {
	case rate == 0:
		return "0"
	case rate < 0.1:
		return "<0.1"
	case rate < 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", rate), ".0")
	}
	return fmt.Sprintf("%.0f", rate)
}

// milliseconds returns a number of milliseconds as one reads it.
func milliseconds(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.0f s", ms/1000)
}

func waitText(n int) string {
	if n == 1 {
		return "1 waits"
	}
	return fmt.Sprintf("%d wait", n)
}

func entriesText(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

func queueText(q *api.QueueStatus) string {
	text := amount(q.Lanes, q.Entries, q.Bytes)
	if q.LanesWaiting > 0 {
		text += "; " + waitText(q.LanesWaiting)
	}
	if q.Entries > 0 {
		text += "; the oldest for " + roughly(time.Duration(q.OldestSeconds*float64(time.Second)))
	}
	if q.Paused {
		text += "; paused"
	}
	if q.Draining {
		text += "; being drained"
	}
	if !q.Connected {
		text += "; not connected"
	}
	return text
}

func alertsText(s *api.Status, now time.Time) string {
	text := fmt.Sprintf("%d to send", s.AlertsPending)
	if len(s.Alerts) == 0 {
		return text
	}
	last := &s.Alerts[0]
	text += fmt.Sprintf("; the last one: %s, %s ago", outcome.Clip(string(last.Reason)), roughly(now.Sub(last.At)))
	if !last.Sent {
		text += ", not sent: " + outcome.Clip(last.Error)
	}
	return text
}

// How much of an address and of a name a table shows.
const (
	longestAddress = 22
	longestName    = 12
)

// cell cuts off the beginning of a long text: addresses differ at the end.
func cell(text string, longest int) string {
	if runes := []rune(outcome.Printable(text)); len(runes) > longest {
		return "…" + string(runes[len(runes)-longest+1:])
	}
	return text
}

func standingRows(all []api.Standing, several bool, now time.Time) [][]string {
	rows := [][]string{{"STANDS", "FOR", "TRIES", "NEXT", "HANDLER", "SAID"}}
	if several {
		rows[0] = slices.Insert(rows[0], 1, "BLOCK")
	}
	for _, s := range all {
		next := ""
		switch {
		case s.Waiting:
			next = "now"
		case !s.Next.IsZero():
			next = "~" + roughly(s.Next.Sub(now))
		}
		row := []string{cell(s.Instance, longestName), roughly(now.Sub(s.Since)), strconv.Itoa(s.Attempts), next, cell(s.Handler, longestAddress), cmp.Or(s.Said, string(s.Reason))}
		if several {
			row = slices.Insert(row, 1, cell(s.Name, longestName))
		}
		rows = append(rows, row)
	}
	return rows
}

func handlerRows(blocks []api.Block, several bool, now time.Time) [][]string {
	rows := [][]string{{"HANDLER", "STATE", "IN HAND", "TAKEN", "FAILED", "P50", "P99"}}
	if several {
		rows[0] = slices.Insert(rows[0], 1, "BLOCK")
	}
	for _, block := range blocks {
		for _, up := range block.Upstreams {
			not := int64(0)
			for _, n := range up.NotTaken {
				not += n
			}
			row := []string{
				cell(up.Address, longestAddress), stateText(&up, now), inHandText(&up), strconv.FormatInt(up.Taken, 10),
				strconv.FormatInt(not, 10), milliseconds(up.P50), milliseconds(up.P99),
			}
			if several {
				row = slices.Insert(row, 1, cell(block.Name, longestName))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// inHandText says how many notifications a handler has, and how many it may have.
func inHandText(up *api.Upstream) string {
	if up.Limit > 0 {
		return fmt.Sprintf("%d/%d", up.NumRequests, up.Limit) // the limit is one over all blocks
	}
	return strconv.Itoa(up.InHand)
}

// lately is how long a table shows a fault of a handler.
const lately = 5 * time.Minute

func stateText(up *api.Upstream, now time.Time) string {
	switch {
	case up.Until.After(now):
		return "left alone " + roughly(up.Until.Sub(now))
	case !up.Healthy:
		return "not healthy"
	case up.LastFault != nil && now.Sub(up.LastFault.At) < lately:
		said := string(up.LastFault.Reason)
		if up.LastFault.Status != 0 {
			said = strconv.Itoa(up.LastFault.Status)
		}
		return said + " " + roughly(now.Sub(up.LastFault.At)) + " ago"
	}
	return "well"
}
