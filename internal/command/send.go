package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// firstInstance is the ID of the first instance that send simulates.
const firstInstance = 1101000001

func sendCommand() *cobra.Command {
	s := new(sendFlags)
	cmd := &cobra.Command{
		Use:   "send <url>",
		Short: "Sends notifications as GREEN-API does",
		Long: `Sends notifications as GREEN-API does: one queue for each instance, with one notification in flight.
Unless that is answered exactly 200, it is sent again after a pause of 60 seconds, and everything behind
it waits.

Without --body it sends the built-in examples, which have invented values: one of every type and
message type, each with its own id. With --body it sends files unchanged. With --chats those of an
instance go to several invented chats in turn, as many for each kind of chat: of two, of a group, and of
each messenger. An example that names no chat stays without one.

A notification that goes into the quarantine is answered 200, too. The summary therefore shows how many
acknowledged notifications were delivered and how many quarantined, as counted meanwhile by the edge's
admin API: the one at --admin or, if the URL is on this machine, the one at localhost:2019. With --format
json these numbers are delivered and quarantined, null if unknown.

If the edge has a queue, a notification is answered 200 before a handler has it. Send then waits until
the queue is empty, and the summary shows how long that took since the first attempt. With --format json
this is handled_seconds, null if unknown. Without a queue it is the time of the last 200.

Exit status: 0 if all were acknowledged, 1 if some were not, 2 if the command was not understood. On
Ctrl-C it stops and prints how far it got.`,
		Example: `  caddy green-api send http://127.0.0.1:8080/green-api/webhook --token demo-token
  caddy green-api send https://hooks.example.com/green-api/webhook --token "$GREEN_API_TOKEN" \
      --type incomingMessageReceived.textMessage --instances 20 --count 100 --rate 50
  caddy green-api send http://127.0.0.1:8080/green-api/webhook --token demo-token \
      --body notification.json --attempts 1
  caddy green-api send http://127.0.0.1:8080/green-api/webhook --token demo-token \
      --type incomingMessageReceived.textMessage --count 1000 --chats 100`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one URL")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args[0]) },
	}
	return s.with(cmd)
}

// sendFlags are the command's flags.
type sendFlags struct {
	options sender.Options
	plan    sendPlan
	format  string
	admin   string
	wait    time.Duration
}

// with adds the flags to the command.
func (s *sendFlags) with(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&s.options.Token, "token", "", "webhookUrlToken, as in the console")
	flags.StringSliceVar(&s.plan.types, "type", nil, "send only examples of this TYPE or TYPE.MESSAGE; may be repeated")
	flags.StringSliceVar(&s.plan.files, "body", nil, "send this file unchanged, or the *.json files in a directory; may be repeated")
	flags.IntVar(&s.plan.instances, "instances", 1, "number of instances that send, each with its own queue")
	flags.IntVar(&s.plan.chats, "chats", 1, "number of chats over which the examples of an instance are spread")
	flags.IntVar(&s.plan.count, "count", 0, "notifications per instance; default is each example or file once")
	flags.Float64Var(&s.options.Rate, "rate", 0, "maximum notifications a second that an instance starts to send; GREEN-API sends about 50; 0 is no limit")
	flags.DurationVar(&s.options.Pause, "pause", sender.DefaultPause, "how long to wait before sending a notification again")
	flags.DurationVar(&s.options.Timeout, "timeout", sender.DefaultTimeout, "how long to wait for an answer")
	flags.IntVar(&s.options.InFlight, "in-flight", 1, "notifications of one instance in flight at once; the vendor does not document how many")
	flags.IntVar(&s.options.Attempts, "attempts", 0, "attempts after which a notification is given up; 0 means after 24 hours")
	flags.BoolVar(&s.options.NewConnections, "new-connections", false, "open a new connection for each attempt")
	flags.BoolVar(&s.options.Insecure, "insecure", false, "accept any TLS certificate")
	flags.StringVar(&s.admin, "admin", "", "address of the edge's admin API, such as localhost:2019 or unix//run/caddy/admin.sock")
	flags.DurationVar(&s.wait, "wait", defaultWait, "after the last 200, how long to wait until the edge's queue is empty; 0s does not wait")
	flags.StringVar(&s.format, "format", formatText, "format of the summary, text or json")
	return cmd
}

// run sends the planned notifications, and prints the summary.
func (s *sendFlags) run(cmd *cobra.Command, url string) error {
	queues, err := s.check()
	if err == nil {
		err = checkAdmin(cmd, s.admin)
	}
	if err != nil {
		return usageError(cmd, err)
	}
	ending := watchEnds(url, s.admin)
	watch := newProgress(cmd.ErrOrStderr(), s.plan.total(), s.options.Pause)
	watch.asIs = s.plan.asIs
	s.options.URL, s.options.OnAttempt = url, watch.attempt
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := sender.Run(ctx, s.options, queues...)
	if err != nil {
		watch.close()
		return usageError(cmd, err)
	}
	ending.wait, ending.onWait = s.wait, watch.queue
	how := ending.end(ctx, report, s.plan.instanceIDs())
	watch.close()
	if (s.admin != "" || how.left > 0) && !how.known && s.format == formatJSON { // the summary has only null, so say why
		_ = how.print(cmd.ErrOrStderr())
	}
	if err := printReport(cmd.OutOrStdout(), report, how, s.plan.total(), s.format); err != nil {
		return err
	}
	if report.Acknowledged < s.plan.total() {
		return errFindings
	}
	return nil
}

// check checks the flags, and returns the queues to send.
func (s *sendFlags) check() ([]sender.Queue, error) {
	if s.format != formatText && s.format != formatJSON {
		return nil, fmt.Errorf("invalid --format %q; want text or json", s.format)
	}
	if s.plan.chats < 1 {
		return nil, fmt.Errorf("invalid --chats %d; want 1 or more", s.plan.chats)
	}
	if s.plan.chats > maxChats {
		return nil, fmt.Errorf("invalid --chats %d; want at most %d", s.plan.chats, maxChats)
	}
	queues, err := s.plan.queues()
	if err != nil {
		return nil, err
	}
	for flag, value := range map[string]time.Duration{"--pause": s.options.Pause, "--timeout": s.options.Timeout} {
		if value <= 0 {
			return nil, fmt.Errorf("invalid %s %s; want a duration above 0s", flag, value)
		}
	}
	if s.wait < 0 {
		return nil, fmt.Errorf("invalid --wait %s; want 0s or more", s.wait)
	}
	if s.options.InFlight < 1 {
		return nil, fmt.Errorf("invalid --in-flight %d; want 1 or more", s.options.InFlight)
	}
	if s.options.InFlight > maxSenders/s.plan.instances {
		return nil, fmt.Errorf("invalid --in-flight %d; want at most %d for all --instances together", s.options.InFlight, maxSenders)
	}
	return queues, nil
}

// maxSenders limits how many instances send at once; each takes some memory.
const maxSenders = 1_000_000

// sendPlan is what to send.
type sendPlan struct {
	types, files     []string
	instances, count int
	chats            int // 0 or 1: as in the examples

	bodies []sender.Notification
	asIs   bool
	chatOf []string // of each body, "" if it names none; nil if all stay in their chat
}

// total returns how many notifications are planned.
func (p *sendPlan) total() int { return p.instances * p.count }

// queues returns a queue for each instance.
func (p *sendPlan) queues() ([]sender.Queue, error) {
	if p.instances < 1 {
		return nil, fmt.Errorf("invalid --instances %d; want 1 or more", p.instances)
	}
	if p.instances > maxSenders {
		return nil, fmt.Errorf("invalid --instances %d; want at most %d", p.instances, maxSenders)
	}
	if p.count < 0 {
		return nil, fmt.Errorf("invalid --count %d; want 1 or more", p.count)
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	p.findChats()
	if p.count == 0 {
		p.count = len(p.bodies)
	}
	queues := make([]sender.Queue, p.instances)
	for i := range queues {
		id := instanceID(i)
		queues[i] = sender.Queue{Instance: id, Notifications: p.notifications(id)}
	}
	return queues, nil
}

// instanceID returns the ID of the nth simulated instance.
func instanceID(n int) string { return strconv.Itoa(firstInstance + n) }

// load reads the files, or selects the examples of the wanted types.
func (p *sendPlan) load() error {
	if len(p.files) > 0 {
		if len(p.types) > 0 {
			return errors.New("--type goes with the built-in examples; want it without --body")
		}
		if p.chats > 1 {
			return errors.New("--chats goes with the built-in examples; want it without --body")
		}
		p.asIs = true
		return p.loadFiles()
	}
	found := make(map[string]bool)
	for _, example := range notification.Examples() {
		kind := example.Type
		if example.Message != "" {
			kind += "." + example.Message
		}
		if found[kind] && len(p.types) == 0 {
			continue // one of each
		}
		found[kind], found[example.Type] = true, true
		if len(p.types) == 0 || slices.Contains(p.types, kind) || slices.Contains(p.types, example.Type) {
			p.bodies = append(p.bodies, sender.Notification{Name: example.Name, Body: example.Body})
		}
	}
	for _, want := range p.types {
		if !found[want] {
			return fmt.Errorf("no example of --type %q; want TYPE or TYPE.MESSAGE out of %s",
				want, strings.Join(slices.Sorted(maps.Keys(found)), ", "))
		}
	}
	return nil
}

func (p *sendPlan) loadFiles() error {
	for _, file := range p.files {
		paths := []string{file}
		info, err := os.Stat(file)
		if err == nil && info.IsDir() {
			if paths, err = filepath.Glob(filepath.Join(file, "*.json")); err == nil && len(paths) == 0 {
				err = fmt.Errorf("%s: no *.json file in it", file)
			}
		}
		if err != nil {
			return fmt.Errorf("--body: %w", err)
		}
		for _, path := range paths {
			body, err := os.ReadFile(path) //nolint:gosec // the user names it
			if err != nil {
				return fmt.Errorf("--body: %w", err)
			}
			p.bodies = append(p.bodies, sender.Notification{Name: filepath.Base(path), Body: body})
		}
	}
	return nil
}

// notifications returns the notifications of one instance, in turn.
func (p *sendPlan) notifications(instance string) iter.Seq[sender.Notification] {
	return func(yield func(sender.Notification) bool) {
		turn := chatTurn{chats: p.chats, next: make(map[string]int)}
		for i := range p.count {
			n := p.bodies[i%len(p.bodies)]
			if p.chatOf != nil {
				n.Body = turn.body(n.Body, p.chatOf[i%len(p.bodies)])
			}
			if !p.asIs {
				id := fmt.Sprintf("SEND%s%08X%06X", instance, time.Now().UnixMilli()&0xFFFFFFFF, i)
				n.Body = notification.Personalize(n.Body, instance, id, time.Now())
			}
			if !yield(n) {
				return
			}
		}
	}
}

// sendSummary is send's JSON output.
type sendSummary struct {
	Notifications  int            `json:"notifications"`
	Sent           int            `json:"sent"`
	Acknowledged   int            `json:"acknowledged"`
	Lost           int            `json:"lost"`
	Unfinished     int            `json:"unfinished"`
	Resent         int            `json:"resent"`
	Delivered      *int           `json:"delivered"` // of the acknowledged; null if unknown
	Quarantined    *int           `json:"quarantined"`
	Answers        map[string]int `json:"answers"`
	StalledSeconds float64        `json:"stalled_seconds"`
	LongestStall   float64        `json:"longest_stall_seconds"`
	P50            float64        `json:"p50_seconds"`
	P99            float64        `json:"p99_seconds"`
	Seconds        float64        `json:"seconds"`
	HandledSeconds *float64       `json:"handled_seconds"` // null if unknown
}

func printReport(out io.Writer, r *sender.Report, how ends, total int, format string) error {
	if format == formatJSON {
		summary := sendSummary{
			Notifications: total, Sent: r.Sent, Acknowledged: r.Acknowledged, Lost: r.Lost, Unfinished: r.Unfinished, Resent: r.Resent, Answers: r.Answers,
			StalledSeconds: r.Stalled.Seconds(), LongestStall: r.LongestStall.Seconds(),
			P50: r.Quantile(0.5).Seconds(), P99: r.Quantile(0.99).Seconds(), Seconds: r.Took.Seconds(),
		}
		if how.known {
			summary.Delivered, summary.Quarantined = &how.delivered, &how.quarantined
		}
		if how.handled > 0 {
			seconds := how.handled.Seconds()
			summary.HandledSeconds = &seconds
		}
		return json.NewEncoder(out).Encode(summary)
	}
	var answers []string
	for _, status := range slices.Sorted(maps.Keys(r.Answers)) {
		answers = append(answers, fmt.Sprintf("%s: %d", status, r.Answers[status]))
	}
	unfinished := ""
	if r.Unfinished > 0 {
		unfinished = fmt.Sprintf("%d unfinished, %d not sent behind them, ", r.Unfinished, total-r.Sent)
	}
	_, err := fmt.Fprintf(out, "%d of %d sent, %d acknowledged, %d lost, %s%d re-sent in %s\n",
		r.Sent, total, r.Acknowledged, r.Lost, unfinished, r.Resent, round(r.Took))
	if err == nil && r.Acknowledged > 0 {
		err = how.print(out)
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "answers by status: %s\nstalled %s in all, %s at most\n", strings.Join(answers, ", "), round(r.Stalled), round(r.LongestStall))
	}
	if err == nil && r.Acknowledged > 0 {
		_, err = fmt.Fprintf(out, "from first attempt to 200: p50 %s, p99 %s, at most %s\n",
			round(r.Quantile(0.5)), round(r.Quantile(0.99)), round(r.Quantile(1)))
	}
	if err == nil && how.handled > 0 {
		_, err = fmt.Fprintf(out, "from first attempt until all acknowledged ones were handled: %s\n", round(how.handled))
	}
	return err
}

// round rounds to about three digits.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
