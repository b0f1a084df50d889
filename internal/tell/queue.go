package tell

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// QueueGauges say what the queue holds and does at one moment: Put is Entries and all of Done, but for what is just
// being removed.
type QueueGauges struct {
	Entries, Bytes, MaxBytes int64
	Lanes, LanesWaiting      int
	InFlight                 int
	Oldest                   time.Duration // how long ago the oldest entry was received, 0 if there is none
	Paused                   bool          // something is
	Put                      int64         // records stored, with those that the queue held when it was opened
	Done                     map[string]int64

	// Of a queue that several edges share.
	Shared     bool
	Partitions int   // that this edge serves
	Takeovers  int64 // how often it has begun to serve one
}

// queueMetrics live as long as the desk, as all its metrics do.
type queueMetrics struct {
	put, wait prometheus.Histogram
	gauges    *queueCollector
}

func newQueueMetrics(gauges func() *QueueGauges) queueMetrics {
	return queueMetrics{
		put: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "caddy_green_api_queue_put_seconds",
			Help:    "Time to store a notification in the queue, waiting for room included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 180},
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "caddy_green_api_queue_wait_seconds",
			Help:    "Time from receipt to the handler's 2xx, of notifications that were in the queue.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600},
		}),
		gauges: newQueueCollector(gauges),
	}
}

func (m *queueMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.put, m.wait, m.gauges}
}

// A queueCollector asks once for all that it shows.
type queueCollector struct {
	ask    func() *QueueGauges
	shown  []shownOfQueue
	shared []shownOfQueue // only if several edges share the queue
	done   *prometheus.Desc
}

type shownOfQueue struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*QueueGauges) float64
}

func newQueueCollector(ask func() *QueueGauges) *queueCollector {
	c := &queueCollector{ask: ask}
	shownAs := func(name, help string, kind prometheus.ValueType, value func(*QueueGauges) float64) shownOfQueue {
		return shownOfQueue{prometheus.NewDesc("caddy_green_api_queue_"+name, help, nil, nil), kind, value}
	}
	show := func(name, help string, kind prometheus.ValueType, value func(*QueueGauges) float64) {
		c.shown = append(c.shown, shownAs(name, help, kind, value))
	}
	gauge := func(name, help string, value func(*QueueGauges) float64) {
		show(name, help, prometheus.GaugeValue, value)
	}
	gauge("entries", "Notifications in the queue.", func(q *QueueGauges) float64 { return float64(q.Entries) })
	gauge("bytes", "Bytes of the queue that are in use.", func(q *QueueGauges) float64 { return float64(q.Bytes) })
	gauge("max_bytes", "Bytes that the queue may use.", func(q *QueueGauges) float64 { return float64(q.MaxBytes) })
	gauge("lanes", "Lanes that have something in them.", func(q *QueueGauges) float64 { return float64(q.Lanes) })
	gauge("lanes_waiting", "Lanes that stand still: they wait for their next round, or are held.", func(q *QueueGauges) float64 { return float64(q.LanesWaiting) })
	gauge("in_flight", "Deliveries from the queue that are under way.", func(q *QueueGauges) float64 { return float64(q.InFlight) })
	gauge("oldest_seconds", "How long ago the oldest notification in the queue was received.", func(q *QueueGauges) float64 { return q.Oldest.Seconds() })
	gauge("paused", "Whether something in the queue is paused.", func(q *QueueGauges) float64 {
		if q.Paused {
			return 1
		}
		return 0
	})
	show("put_total", "Notifications stored in the queue, with those that it held at the start.", prometheus.CounterValue, func(q *QueueGauges) float64 { return float64(q.Put) })
	c.shared = []shownOfQueue{
		shownAs("partitions", "Partitions of the shared queue that this edge serves.", prometheus.GaugeValue, func(q *QueueGauges) float64 { return float64(q.Partitions) }),
		shownAs("takeovers_total", "How often this edge has begun to serve a partition of the shared queue.", prometheus.CounterValue, func(q *QueueGauges) float64 { return float64(q.Takeovers) }),
	}
	c.done = prometheus.NewDesc("caddy_green_api_queue_done_total", "Notifications that have left the queue, by what became of them.", []string{"outcome"}, nil)
	return c
}

// Describe describes the metrics.
func (c *queueCollector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range slices.Concat(c.shown, c.shared) {
		to <- s.desc
	}
	to <- c.done
}

// Collect collects them. There are none while the queue is closed.
func (c *queueCollector) Collect(to chan<- prometheus.Metric) {
	if c.ask == nil {
		return
	}
	q := c.ask()
	if q == nil {
		return
	}
	shown := c.shown
	if q.Shared {
		shown = slices.Concat(shown, c.shared)
	}
	for _, s := range shown {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(q))
	}
	for end, n := range q.Done {
		to <- prometheus.MustNewConstMetric(c.done, prometheus.CounterValue, float64(n), end)
	}
}

// QueuePut counts how long it took to store a notification in the queue.
func (r *Reporter) QueuePut(took time.Duration) { r.Desk.metrics.queue.put.Observe(took.Seconds()) }

// QueueWait counts how long after its receipt a notification from the queue was delivered.
func (r *Reporter) QueueWait(d time.Duration) { r.Desk.metrics.queue.wait.Observe(d.Seconds()) }
