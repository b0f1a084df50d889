package tell

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// gaugesOf are gauges that show numbers of their own.
func gaugesOf() Gauges {
	of := func(n float64) func() float64 { return func() float64 { return n } }
	return Gauges{
		Waiting: of(1), QuarantineEntries: of(2), QuarantineBytes: of(3), QuarantineMaxBytes: of(4), QuarantineFree: of(7),
		Receivers: map[string]func() float64{"standby": of(5), "failing": of(6)},
	}
}

func newReporter(d *Desk, log *zap.Logger) *Reporter {
	return &Reporter{
		Desk: d, Name: "block", Log: log, DeskLog: log,
		PerInstance: func(instance string) bool { return instance == "1" },
		Details:     func(reason.Reason, *outcome.Case) (string, bool) { return "", true },
		Emitter:     func(string) func(map[string]any) { return nil },
	}
}

type accessLog []string

func (a *accessLog) Set(field zap.Field) { *a = append(*a, field.Key+"="+field.String) }

// TestRecord: each way to end has its message, is counted once, and is in the access log.
func TestRecord(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	d := NewDesk(gaugesOf(), DefaultTimes(), nil)
	r := newReporter(d, zap.New(core))
	ends := map[outcome.Outcome]string{
		outcome.Delivered: "notification delivered", outcome.Dropped: "notification dropped", outcome.Quarantined: "notification quarantined",
		outcome.Refused: "request refused", outcome.Failed: "notification failed", outcome.Queued: "notification queued",
	}
	if counts := d.Feed.Totals(); len(counts) != len(ends)-1 {
		t.Errorf("without a queue, %v in total", counts)
	}
	for end, message := range ends {
		c := &outcome.Case{N: &notification.Notification{Instance: "1"}, Kind: "incomingMessageReceived", Started: time.Now(), Body: []byte("SECRET")}
		var access accessLog
		r.Record(c, &outcome.Verdict{Outcome: end, Reason: reason.Schema}, &access)
		got := logs.TakeAll()
		if len(got) != 1 || got[0].Message != message || strings.Contains(fmt.Sprint(got[0].ContextMap()), "SECRET") {
			t.Errorf("%s: %v", end, got)
		}
		if !slices.Equal(access, []string{"green_api_outcome=" + string(end), "green_api_instance=1", "green_api_reason=schema"}) {
			t.Errorf("%s: access log %v", end, access)
		}
		if n := d.Feed.Totals()[end]; n != 1 {
			t.Errorf("%s: %d in total", end, n)
		}
		if n := testutil.ToFloat64(d.metrics.notifications.WithLabelValues("incomingMessageReceived", string(end), "schema")); n != 1 {
			t.Errorf("%s: %g counted", end, n)
		}
	}
	if n := testutil.CollectAndCount(d.metrics.byInstance); n != len(ends)-1 { // without refused
		t.Errorf("%d outcomes of the instance", n)
	}
	if n := testutil.CollectAndCount(d.metrics.delivery); n != 1 {
		t.Errorf("%d deliveries", n)
	}
	r.LogBody = true
	r.Record(&outcome.Case{N: new(notification.Notification), Body: []byte(strings.Repeat("x", 2*maxLoggedBody))}, &outcome.Verdict{Outcome: outcome.Dropped}, nil)
	if body := logs.TakeAll()[0].ContextMap()["body"].(string); len(body) != maxLoggedBody {
		t.Errorf("%d bytes of the body are logged", len(body))
	}
}

// TestAlertDetails: the block decides which alerts are wanted, and adds to them; below WARN there is none.
func TestAlertDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(gaugesOf(), DefaultTimes(), w)
		e := endpoint(t, "well")
		var err error
		if e.Body, err = NewBody("{alert.text}", false, nil); err != nil {
			t.Fatal(err)
		}
		d.Configure([]Endpoint{e}, zap.NewNop())
		r := newReporter(d, zap.NewNop())
		r.Details = func(why reason.Reason, c *outcome.Case) (string, bool) {
			return "More of " + c.Client + ".", why != reason.BadToken
		}
		for why, level := range map[reason.Reason]zapcore.Level{reason.Schema: zap.ErrorLevel, reason.BadToken: zap.WarnLevel, reason.Unwanted: zap.InfoLevel} {
			c := &outcome.Case{N: new(notification.Notification), Claimed: "7", Client: "203.0.113.7", QuarantineID: "ID"}
			r.Record(c, &outcome.Verdict{Outcome: outcome.Refused, Reason: why, Level: level}, nil)
		}
		d.Close()
		got := w.all("well")
		if len(got) != 1 || !strings.HasSuffix(got[0], ", instance 7. More of 203.0.113.7. An example is in the quarantine: ID") {
			t.Errorf("told %q", got)
		}
	})
}

// TestMetricsBounded: however many instances send, only those that the block names have series.
func TestMetricsBounded(t *testing.T) {
	d := NewDesk(gaugesOf(), DefaultTimes(), nil)
	r := newReporter(d, zap.NewNop())
	registry := prometheus.NewRegistry()
	if err := d.Register(registry, true, false); err != nil {
		t.Fatal(err)
	}
	record := func(n int) {
		c := &outcome.Case{N: &notification.Notification{Type: fmt.Sprint("type", n), Instance: fmt.Sprint(n), Timestamp: int64(n)}, Kind: notification.KindOther, Started: time.Now()}
		r.Record(c, &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.UnknownType}, nil)
	}
	count := func() int {
		n, err := testutil.GatherAndCount(registry)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	record(1)
	before := count()
	for n := range 10_000 {
		record(n)
	}
	if after := count(); after != before {
		t.Errorf("%d series, %d before", after, before)
	}
	if got := testutil.ToFloat64(d.metrics.notifications.WithLabelValues(notification.KindOther, "dropped", "unknown_type")); got != 10_001 {
		t.Errorf("%g counted", got)
	}
}

// TestRegister: each config's registry gets the metrics, two blocks of one config share them, and gauges
// show what they are handed.
func TestRegister(t *testing.T) {
	d := NewDesk(gaugesOf(), DefaultTimes(), nil)
	for range 2 {
		registry := prometheus.NewPedanticRegistry()
		for range 2 {
			if err := d.Register(registry, true, false); err != nil {
				t.Fatal(err)
			}
		}
		sum := 0.0
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				sum += metric.GetGauge().GetValue()
			}
		}
		if math.Round(sum) != 28 {
			t.Errorf("the gauges show %g in all", sum)
		}
	}
}

// TestQueueMetrics: a config with a queue shows what it holds, of one moment, and nothing while it is closed; other
// configs have no such metrics.
func TestQueueMetrics(t *testing.T) {
	gauges, asked := gaugesOf(), 0
	var state *QueueGauges
	gauges.Queue = func() *QueueGauges { asked++; return state }
	d := NewDesk(gauges, DefaultTimes(), nil)
	r := newReporter(d, zap.NewNop())
	r.QueuePut(3 * time.Millisecond)
	r.QueueWait(2 * time.Hour)
	shown := func(queue bool) (lines []string) {
		registry := prometheus.NewPedanticRegistry()
		if err := d.Register(registry, false, queue); err != nil {
			t.Fatal(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			name, ours := strings.CutPrefix(family.GetName(), "caddy_green_api_queue_")
			for _, metric := range family.GetMetric() {
				if !ours {
					continue
				}
				line := name
				for _, label := range metric.GetLabel() {
					line += " " + label.GetValue()
				}
				lines = append(lines, fmt.Sprint(line, " ", metric.GetGauge().GetValue()+metric.GetCounter().GetValue()+metric.GetHistogram().GetSampleSum()))
			}
		}
		return lines
	}
	closed := []string{"put_seconds 0.003", "wait_seconds 7200"}
	if got := shown(true); !slices.Equal(got, closed) {
		t.Errorf("closed: %q", got)
	}
	state = &QueueGauges{
		Entries: 1, Bytes: 2, MaxBytes: 3, Lanes: 4, LanesWaiting: 5, InFlight: 6, Oldest: 7 * time.Second, Paused: true, Put: 8,
		Done: map[string]int64{"delivered": 9, "quarantined": 10, "gone": 11},
	}
	asked = 0
	want := []string{
		"bytes 2", "done_total delivered 9", "done_total gone 11", "done_total quarantined 10", "entries 1", "in_flight 6", "lanes 4", "lanes_waiting 5",
		"max_bytes 3", "oldest_seconds 7", "paused 1", "put_seconds 0.003", "put_total 8", "wait_seconds 7200",
	}
	if got := shown(true); !slices.Equal(got, want) {
		t.Errorf("open: %q, want %q", got, want)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	state.Paused = false
	if got := shown(true); !slices.Contains(got, "paused 0") {
		t.Errorf("not paused: %q", got)
	}
	state.Shared, state.Partitions, state.Takeovers = true, 12, 13
	if got := shown(true); !slices.Contains(got, "partitions 12") || !slices.Contains(got, "takeovers_total 13") {
		t.Errorf("shared: %q", got)
	}
	if got := shown(false); len(got) != 0 {
		t.Errorf("without a queue: %q", got)
	}
}

// TestScanners: strangers are told of once a minute, and at the end.
func TestScanners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		s := &Scanners{Log: zap.New(core)}
		s.Flush()
		for range 100 {
			s.Add("203.0.113.7")
			time.Sleep(1100 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		s.Add("203.0.113.8\x1b")
		s.Flush()
		time.Sleep(time.Hour)
		var got []string
		for _, entry := range logs.All() {
			got = append(got, fmt.Sprint(entry.Message, " ", entry.ContextMap()))
		}
		const said = "requests refused from addresses that are not allowed map[count:"
		want := []string{
			said + "55 last_client_ip:203.0.113.7 reason:ip_not_allowed]", said + "45 last_client_ip:203.0.113.7 reason:ip_not_allowed]",
			said + "1 last_client_ip:203.0.113.8? reason:ip_not_allowed]",
		}
		if !slices.Equal(got, want) {
			t.Errorf("logged %q", got)
		}
	})
}
