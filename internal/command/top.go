package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func topCommand() *cobra.Command {
	a := new(adminFlags)
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Shows who stands still and why, and what the edge does now",
		Long: `Shows what a running server does, and begins with what needs you: which instance stands still, since when,
which handler is to blame and what it said; or that all is well. Then: how many notifications end in which
way a second, how long deliveries take, the handlers, all instances that stand still, the quarantine, the
queue and the alerts. It refreshes every 2 seconds until Ctrl-C. Of messages it shows nothing.

It finds the admin API as 'caddy reload' does: by --address, by the admin option of --config, or at
localhost:2019. It holds one stream of /green_api/live, and asks for /green_api/status every 5 seconds at
most, every 30 if nothing happens: each is a line in the server's log.

If the output is not a terminal, pictures follow each other. With --once it prints one, and with --format
json an object: sentence, well (whether there is nothing to say), rates (of each outcome, a second), p50_ms,
p99_ms and waiting, and in status what /green_api/status says. The variable NO_COLOR turns colours off.

Exit status: 0, also if an instance stands still, 2 if the command was not understood or the server could
not be reached.`,
		Example: `  caddy green-api top
  caddy green-api top --address unix//run/caddy/admin.sock --once
  caddy green-api top --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := a.find()
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			t := &top{address: address, out: cmd.OutOrStdout(), times: usualTopTimes}
			_, t.screen = terminalOf(t.out)
			t.colour = t.screen && os.Getenv("NO_COLOR") == ""
			if err := t.run(ctx, once, a.format == formatJSON); err != nil {
				if err = noAnswer(cmd, address, err); errors.Is(err, errFindings) {
					return exit(cmd)
				}
				return err
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one picture and end")
	return a.with(cmd)
}

// topTimes say how often top does what.
type topTimes struct {
	picture, status, idle time.Duration // status if something happens, idle otherwise
	lost                  time.Duration // how long a server may be gone, such as for a restart
}

var usualTopTimes = topTimes{picture: 2 * time.Second, status: 5 * time.Second, idle: 30 * time.Second, lost: 30 * time.Second}

// A top shows what an edge does.
type top struct {
	address        string
	out            io.Writer
	screen, colour bool // a terminal
	times          topTimes

	news   <-chan liveNews // of the stream; nil if there is none
	close  func()          // ends it
	now    overview
	ends   map[outcome.Outcome]int64
	counts []counted // at the last pictures, oldest first
	asked  time.Time // for the status
	fresh  bool      // something has happened since
	gone   time.Time // the server does not answer since; zero if it does
	why    error
}

// counted is what had ended at a time.
type counted struct {
	at   time.Time
	ends map[outcome.Outcome]int64
}

// An overview is what top shows.
type overview struct {
	Sentence string                      `json:"sentence"`
	Well     bool                        `json:"well"`
	Rates    map[outcome.Outcome]float64 `json:"rates"`
	P50      float64                     `json:"p50_ms"`
	P99      float64                     `json:"p99_ms"`
	Waiting  int                         `json:"waiting"`
	Status   api.Status                  `json:"status"`
}

// liveNews is an event of /green_api/live that top needs, or the end of the stream.
type liveNews struct {
	Counts []struct {
		Outcome outcome.Outcome `json:"outcome"`
		N       int64           `json:"n"`
	} `json:"counts"`
	Waiting int     `json:"waiting"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`

	Now   time.Time  `json:"now"`
	Trend *liveTrend `json:"trend"`

	ended error
}

// liveTrend is how many ended in each slot.
type liveTrend struct {
	Seconds int64                     `json:"seconds"`
	Until   int64                     `json:"until"`
	Slots   []map[outcome.Outcome]int `json:"slots"`
}

// run shows pictures until ctx ends, or one. Its error is that of the admin API.
func (t *top) run(ctx context.Context, once, asJSON bool) error {
	defer t.hangUp()
	if err := t.connect(); err != nil {
		return err
	}
	if err := t.ask(); err != nil {
		return err
	}
	t.now.say(time.Now())
	switch {
	case asJSON:
		return json.NewEncoder(outcome.JSONWriter{To: t.out}).Encode(&t.now)
	case once:
		return t.draw(time.Now())
	}
	if t.screen {
		fmt.Fprint(t.out, "\x1b[2J")
	}
	if err := t.draw(time.Now()); err != nil {
		return err
	}
	ticker := time.NewTicker(t.times.picture)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case news := <-t.news:
			t.hear(news)
		case now := <-ticker.C:
			if err := t.refresh(now); err != nil {
				return err
			}
			if err := t.draw(now); err != nil {
				return err
			}
		}
	}
}

// refresh brings a picture up to date.
func (t *top) refresh(now time.Time) error {
	if t.news == nil {
		if t.why = t.connect(); t.why != nil {
			if now.Sub(t.gone) > t.times.lost {
				return t.why
			}
			return nil
		}
	}
	if age := now.Sub(t.asked); age >= t.times.idle || age >= t.times.status && (t.fresh || !t.now.Well) {
		if err := t.ask(); err != nil {
			t.hangUp()
			t.gone, t.why = now, err
			return nil
		}
	}
	t.rate(now)
	t.now.say(now)
	return nil
}

// connect opens the stream, and waits for what it begins with.
func (t *top) connect() error {
	response, err := within(adminPatience, func() (*http.Response, error) { //nolint:bodyclose // t.close closes it
		return askAdminFor("text/event-stream", t.address, http.MethodGet, "live", nil)
	})
	if err != nil {
		return err
	}
	news, done := make(chan liveNews), make(chan struct{})
	go readLive(response.Body, news, done)
	t.news, t.close = news, func() { close(done); _ = response.Body.Close() }
	patience := time.NewTimer(adminPatience)
	defer patience.Stop()
	for range 2 { // hello and tick
		select {
		case first := <-news:
			if first.ended != nil {
				t.hangUp()
				return first.ended
			}
			t.hear(first)
		case <-patience.C:
			t.hangUp()
			return fmt.Errorf("no answer within %s", adminPatience)
		}
	}
	t.gone, t.why = time.Time{}, nil
	return nil
}

func (t *top) hangUp() {
	if t.close != nil {
		t.close()
	}
	t.news, t.close = nil, nil
}

// hear takes in an event.
func (t *top) hear(news liveNews) {
	switch {
	case news.ended != nil:
		t.hangUp()
		t.gone, t.why = time.Now(), news.ended
	case news.Trend != nil:
		t.counts, t.now.Rates = nil, news.Trend.rates(news.Now)
	default:
		t.fresh = true
		t.now.Waiting, t.now.P50, t.now.P99 = news.Waiting, news.P50, news.P99
		t.ends = make(map[outcome.Outcome]int64)
		for _, one := range news.Counts {
			t.ends[one.Outcome] += one.N
		}
		if t.counts == nil {
			t.counts = []counted{{time.Now(), t.ends}}
		}
	}
}

// rates returns how many have ended a second in the slot before the last and in the last one, which is not over.
func (l *liveTrend) rates(now time.Time) map[outcome.Outcome]float64 {
	rates := make(map[outcome.Outcome]float64)
	seconds := 2*float64(l.Seconds) - time.Unix(l.Until, 0).Sub(now).Seconds()
	if seconds <= 0 {
		return rates
	}
	for _, slot := range l.Slots[max(0, len(l.Slots)-2):] {
		for end, n := range slot {
			rates[end] += float64(n) / seconds
		}
	}
	return rates
}

// pictures are how many a rate is of: it is that of about ten seconds.
const pictures = 5

// rate finds out how many end in which way a second.
func (t *top) rate(now time.Time) {
	t.counts = append(t.counts, counted{now, t.ends})
	if len(t.counts) > pictures+1 {
		t.counts = t.counts[1:]
	}
	oldest := t.counts[0]
	seconds := now.Sub(oldest.at).Seconds()
	if seconds <= 0 {
		return
	}
	t.now.Rates = make(map[outcome.Outcome]float64)
	for end, n := range t.ends {
		t.now.Rates[end] = float64(max(0, n-oldest.ends[end])) / seconds
	}
}

// ask asks for the status.
func (t *top) ask() error {
	response, err := within(adminPatience, func() (*http.Response, error) { return askAdmin(t.address, http.MethodGet, "status", nil) })
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var s api.Status
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil || s.Standing == nil {
		return errors.New("its answer is no status, so it is no admin API of a Caddy with green_api, or of an older one")
	}
	t.now.Status, t.asked, t.fresh = s, time.Now(), false
	return nil
}

// draw shows a picture.
func (t *top) draw(now time.Time) error {
	width, height := 80, 0
	if file, ok := t.out.(*os.File); ok && t.screen {
		if columns, rows, err := term.GetSize(int(file.Fd())); err == nil && columns > 20 {
			width, height = columns, rows
		}
	}
	p := &picture{width: width, colour: t.colour}
	if t.why != nil {
		p.line(red, fmt.Sprintf("The server does not answer for %s: %s", roughly(now.Sub(t.gone)), t.why))
	}
	p.draw(&t.now, now)
	lines := p.lines
	if height > 1 && len(lines) >= height {
		lines = lines[:height-1]
	}
	if !t.screen {
		_, err := fmt.Fprint(t.out, strings.Join(lines, "\n")+"\n\n")
		return err
	}
	_, err := fmt.Fprint(t.out, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

// readLive reads server-sent events until they end, and hands over those that top needs.
func readLive(from io.Reader, to chan<- liveNews, done <-chan struct{}) {
	lines, name := bufio.NewReader(from), ""
	hand := func(news liveNews) bool {
		select {
		case to <- news:
			return news.ended == nil
		case <-done:
			return false
		}
	}
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			hand(liveNews{ended: errors.New("the stream of the admin API broke off")})
			return
		}
		if text, is := strings.CutPrefix(line, "event: "); is {
			name = strings.TrimSpace(text)
		}
		data, is := strings.CutPrefix(line, "data: ")
		if !is {
			continue
		}
		var news liveNews
		switch name {
		case "hello", "tick":
			if err := json.Unmarshal([]byte(data), &news); err != nil {
				news = liveNews{ended: fmt.Errorf("the admin API says %q", outcome.Clip(data))}
			}
			if name == "tick" {
				news.Trend = nil
			} else if news.Trend == nil {
				news.Trend = new(liveTrend)
			}
		case "end":
			news.ended = errors.New("it reloads its config")
			if strings.Contains(data, `"exit"`) {
				news.ended = errors.New("it was stopped")
			}
		default:
			continue
		}
		if !hand(news) {
			return
		}
	}
}
