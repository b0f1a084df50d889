package tell

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// metrics live as long as the desk: they keep counting across reloads, also for requests still on an old
// config. Each config's registry gets them. Labels come from closed lists only.
type metrics struct {
	notifications *prometheus.CounterVec
	reportOnly    *prometheus.CounterVec
	delivery      prometheus.Histogram
	attempts      *prometheus.CounterVec
	age           prometheus.Histogram
	last          prometheus.Gauge
	all           []prometheus.Collector

	perInstance []prometheus.Collector
	byInstance  *prometheus.CounterVec
	lastOf      *prometheus.GaugeVec
}

// Gauges are what metrics show of the moment in which they are read.
type Gauges struct {
	Waiting            func() float64            // notifications that wait for a handler
	QuarantineEntries  func() float64            // entries in the quarantine
	QuarantineBytes    func() float64            // its bytes in use
	QuarantineMaxBytes func() float64            // and those it may use
	QuarantineFree     func() float64            // bytes free on its disk; NaN if that is not known
	Receivers          map[string]func() float64 // instances received from the HTTP API, by state
}

func newMetrics(gauges Gauges) *metrics {
	m := &metrics{
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddy_green_api_notifications_total",
			Help: "Requests by type of notification, outcome and reason. Type is other for one without a schema, none for one that was not read.",
		}, []string{"type", "outcome", "reason"}),
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
	return m
}

// Register enters the metrics into the registry of a config. With perInstance, it also gets those of
// single instances.
func (d *Desk) Register(registry prometheus.Registerer, perInstance bool) error {
	collectors := d.metrics.all
	if perInstance {
		collectors = append(slices.Clip(collectors), d.metrics.perInstance...)
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
	m.notifications.WithLabelValues(c.Kind, string(end.Outcome), string(end.Reason)).Inc()
	if end.Outcome == outcome.Refused || c.N.Instance == "" {
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
}

// Attempted counts an attempt to deliver. The result comes from a closed list.
func (r *Reporter) Attempted(result string) { r.Desk.metrics.attempts.WithLabelValues(result).Inc() }
