package tell

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// metrics live as long as the desk: they keep counting across reloads, also for requests still on an old
// config. They are registered with each config's registry. Labels come from closed lists only.
type metrics struct {
	notifications *counters
	reportOnly    *prometheus.CounterVec
	delivery      prometheus.Histogram
	attempts      *prometheus.CounterVec
	taken         func() prometheus.Counter // of the attempts
	age           prometheus.Histogram
	last          prometheus.Gauge
	all           []prometheus.Collector

	perInstance []prometheus.Collector
	byInstance  *prometheus.CounterVec
	lastOf      *prometheus.GaugeVec

	queue queueMetrics
}

// counters finds the counter of some labels faster than its vector does.
type counters struct {
	*prometheus.CounterVec

	found atomic.Pointer[map[labels]prometheus.Counter] // a new map for each new counter, of which there are few
}

type labels struct {
	kind    string
	outcome outcome.Outcome
	reason  reason.Reason
}

func (c *counters) of(l labels) prometheus.Counter {
	found := c.found.Load()
	if found != nil {
		if counter := (*found)[l]; counter != nil {
			return counter
		}
	}
	counter := c.WithLabelValues(l.kind, string(l.outcome), string(l.reason))
	more := make(map[labels]prometheus.Counter)
	if found != nil {
		maps.Copy(more, *found)
	}
	more[l] = counter
	c.found.CompareAndSwap(found, &more) // if another was faster, this one is found next time
	return counter
}

// Gauges are read whenever the metrics are collected.
type Gauges struct {
	Waiting            func() float64            // notifications that wait for a handler
	QuarantineEntries  func() float64            // entries in the quarantine
	QuarantineBytes    func() float64            // bytes in use in it
	QuarantineMaxBytes func() float64            // bytes that it may use
	QuarantineFree     func() float64            // bytes free on its disk; NaN if unknown
	Receivers          map[string]func() float64 // instances received from the HTTP API, by state
	Queue              func() *QueueGauges       // nil while there is none
}

func newMetrics(gauges Gauges) *metrics {
	m := &metrics{
		notifications: &counters{CounterVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddy_green_api_notifications_total",
			Help: "Requests by type of notification, outcome and reason. Type is other for one without a schema, none for one that was not read.",
		}, []string{"type", "outcome", "reason"})},
		reportOnly: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddy_green_api_report_only_total",
			Help: "What would have become of notifications, but for report_only.",
		}, []string{"type", "outcome", "reason"}),
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "caddy_green_api_delivery_seconds",
			Help:    "Time from receipt to the handler's 2xx, waiting included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 180},
		}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddy_green_api_attempts_total",
			Help: "Attempts to deliver by result: taken, or the reason why not.",
		}, []string{"result"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "caddy_green_api_age_seconds",
			Help:    "Age of notifications on arrival, by their own timestamp.",
			Buckets: []float64{1, 2, 5, 15, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600},
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "caddy_green_api_last_notification_timestamp_seconds",
			Help: "When the last notification of a genuine sender came, in Unix seconds.",
		}),
		byInstance: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddy_green_api_instance_notifications_total",
			Help: "Notifications of configured instances by outcome.",
		}, []string{"instance", "outcome"}),
		lastOf: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "caddy_green_api_instance_last_notification_timestamp_seconds",
			Help: "When the last notification of a configured instance came, in Unix seconds.",
		}, []string{"instance"}),
	}
	m.taken = sync.OnceValue(func() prometheus.Counter { return m.attempts.WithLabelValues(taken) })
	gauge := func(name, help string, value func() float64, labels prometheus.Labels) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	m.all = []prometheus.Collector{
		m.notifications, m.reportOnly, m.delivery, m.attempts, m.age, m.last,
		gauge("caddy_green_api_waiting", "Notifications that wait for a handler.", gauges.Waiting, nil),
		gauge("caddy_green_api_quarantine_entries", "Notifications in the quarantine.", gauges.QuarantineEntries, nil),
		gauge("caddy_green_api_quarantine_bytes", "Bytes of the quarantine that are in use.", gauges.QuarantineBytes, nil),
		gauge("caddy_green_api_quarantine_max_bytes", "Bytes that the quarantine may use.", gauges.QuarantineMaxBytes, nil),
		gauge("caddy_green_api_quarantine_free_bytes", "Bytes that are free on the quarantine's disk, as of the last minute.", gauges.QuarantineFree, nil),
	}
	for state, count := range gauges.Receivers {
		m.all = append(m.all, gauge("caddy_green_api_receivers", "Instances received from the HTTP API by state.", count, prometheus.Labels{"state": state}))
	}
	m.perInstance = []prometheus.Collector{m.byInstance, m.lastOf}
	m.queue = newQueueMetrics(gauges.Queue)
	return m
}

// Register registers the metrics with a config's registry. With perInstance, those of single instances are
// included, and with queue those of the queue.
func (d *Desk) Register(registry prometheus.Registerer, perInstance, queue bool) error {
	collectors := slices.Clip(d.metrics.all)
	if perInstance {
		collectors = append(collectors, d.metrics.perInstance...)
	}
	if queue {
		collectors = append(collectors, d.metrics.queue.all()...)
	}
	for _, collector := range collectors {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(collector); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// count counts a request that has ended.
func (r *Reporter) count(c *outcome.Case, end *outcome.Verdict) {
	m := r.Desk.metrics
	m.notifications.of(labels{c.Kind, end.Outcome, end.Reason}).Inc()
	if end.Outcome == outcome.Refused || c.N.Instance == "" {
		return
	}
	if c.Round > 0 { // it is not arriving now
		if r.PerInstance(c.N.Instance) {
			m.byInstance.WithLabelValues(c.N.Instance, string(end.Outcome)).Inc()
		}
		return
	}
	now := float64(c.Started.UnixMilli()) / 1000
	m.last.Set(now)
	if c.N.Timestamp != 0 {
		m.age.Observe(max(0, c.Started.Sub(time.Unix(c.N.Timestamp, 0)).Seconds()))
	}
	if end.Outcome == outcome.Delivered {
		m.delivery.Observe(time.Since(c.Started).Seconds())
	}
	if r.PerInstance(c.N.Instance) {
		m.byInstance.WithLabelValues(c.N.Instance, string(end.Outcome)).Inc()
		m.lastOf.WithLabelValues(c.N.Instance).Set(now)
	}
}

// ReportOnly counts how a notification would have ended without `report_only`.
func (r *Reporter) ReportOnly(c *outcome.Case, end *outcome.Verdict) {
	r.Desk.metrics.reportOnly.WithLabelValues(c.Kind, string(end.Outcome), string(end.Reason)).Inc()
	r.Desk.wouldBe.add(end)
}

// wouldBe counts what would have become of notifications, but for `report_only`.
type wouldBe struct {
	mu     sync.Mutex
	counts map[live.Count]int64 // by outcome and reason
}

func (w *wouldBe) add(end *outcome.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = make(map[live.Count]int64)
	}
	w.counts[live.Count{Outcome: end.Outcome, Reason: end.Reason}]++
}

// WouldBe returns what would have become of how many notifications since the process began, but for `report_only`.
func (d *Desk) WouldBe() []live.Count {
	d.wouldBe.mu.Lock()
	defer d.wouldBe.mu.Unlock()
	all := []live.Count{}
	for count, n := range d.wouldBe.counts {
		count.N = n
		all = append(all, count)
	}
	slices.SortFunc(all, func(x, y live.Count) int {
		return cmp.Or(cmp.Compare(y.N, x.N), cmp.Compare(x.Outcome, y.Outcome), cmp.Compare(x.Reason, y.Reason))
	})
	return all
}

const taken = "taken"

// Taken counts an attempt at which a handler took the notification.
func (r *Reporter) Taken() { r.Desk.metrics.taken().Inc() }

// NotTaken counts any other attempt.
func (r *Reporter) NotTaken(why reason.Reason) {
	r.Desk.metrics.attempts.WithLabelValues(string(why)).Inc()
}
