package greenapi

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
)

// metrics are the process's: they go on counting over config reloads, for requests of an old
// config, too. Each config's registry gets them. Labels come from closed lists only.
var metrics = newMetricSet()

type metricSet struct {
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

func newMetricSet() *metricSet {
	m := &metricSet{
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
	m.all = []prometheus.Collector{
		m.notifications, m.reportOnly, m.delivery, m.attempts, m.age, m.last,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caddy_green_api_waiting", Help: "Notifications that wait for a handler.",
		}, func() float64 { return float64(waitingNotifications()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caddy_green_api_quarantine_entries", Help: "Notifications in the quarantine.",
		}, func() float64 { return float64(quarantineStats().Entries) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caddy_green_api_quarantine_bytes", Help: "Bytes of the quarantine that are in use.",
		}, func() float64 { return float64(quarantineStats().Bytes) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caddy_green_api_quarantine_max_bytes", Help: "Bytes that the quarantine may use.",
		}, func() float64 { return float64(quarantineLimit.Load()) }),
	}
	for _, state := range []string{receiver.Receiving, receiver.Standby, receiver.Failing} {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caddy_green_api_receivers", Help: "Instances received from the HTTP API by state.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(receivers.Count(state)) }))
	}
	m.perInstance = []prometheus.Collector{m.byInstance, m.lastOf}
	return m
}

// register enters the metrics into the registry of a config.
func (m *metricSet) register(registry *prometheus.Registry, perInstance bool) error {
	collectors := m.all
	if perInstance {
		collectors = append(slices.Clip(collectors), m.perInstance...)
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
func (h *Handler) count(v *visit, end *outcome.Verdict) {
	metrics.notifications.WithLabelValues(v.Kind, string(end.Outcome), string(end.Reason)).Inc()
	if end.Outcome == outcome.Refused || v.N.Instance == "" {
		return
	}
	now := float64(v.Started.UnixMilli()) / 1000
	metrics.last.Set(now)
	if v.N.Timestamp != 0 {
		metrics.age.Observe(max(0, v.Started.Sub(time.Unix(v.N.Timestamp, 0)).Seconds()))
	}
	if end.Outcome == outcome.Delivered {
		metrics.delivery.Observe(time.Since(v.Started).Seconds())
	}
	if h.app.perInstance() && h.configured(v.N.Instance) {
		metrics.byInstance.WithLabelValues(v.N.Instance, string(end.Outcome)).Inc()
		metrics.lastOf.WithLabelValues(v.N.Instance).Set(now)
	}
}

// countReportOnly counts how a notification would have ended.
func (h *Handler) countReportOnly(v *visit, end *outcome.Verdict) {
	metrics.reportOnly.WithLabelValues(v.Kind, string(end.Outcome), string(end.Reason)).Inc()
}

// countAttempt counts an attempt.
func countAttempt(got result) {
	label := "taken"
	if got != taken {
		label = string(failures[got].Reason)
	}
	metrics.attempts.WithLabelValues(label).Inc()
}

// waitingNotifications is how many wait for a handler.
func waitingNotifications() (n int) {
	fleets.Range(func(_, value any) bool {
		n += value.(*fleet).waits()
		return true
	})
	return n
}
