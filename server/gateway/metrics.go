package gateway

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Kind is what sort of number a Metric is.
type Kind uint8

const (
	// Gauge numbers go up and down.
	Gauge Kind = iota
	// Counter numbers only grow.
	Counter
	// Histogram says how often a number was how large.
	Histogram
)

// Metric is one number for /metrics. Metrics of one name have the same help,
// kind and label names.
type Metric struct {
	Name, Help string
	Kind       Kind
	// Labels are names and values, by turns.
	Labels []string
	// Value is the number; of a histogram, the sum of all that was observed.
	Value float64
	// Count is how many were observed, and Buckets how many of them were at
	// most so large: of histograms only.
	Count   uint64
	Buckets map[float64]uint64
}

// counters are the numbers of the gateway itself. They are safe for concurrent
// use.
type counters struct {
	requests *prometheus.CounterVec
	bytes    prometheus.Counter
	streams  prometheus.Gauge
}

func newCounters() *counters {
	return &counters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zeolite_http_requests_total", Help: "HTTP requests that were answered, by what for and by status.",
		}, []string{"for", "code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zeolite_http_blob_sent_bytes_total", Help: "Bytes of blobs sent over HTTP.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zeolite_http_blob_streams", Help: "Blobs being sent over HTTP.",
		}),
	}
}

// answered counts a request.
func (c *counters) answered(r *http.Request, rec *recorder) {
	// The pattern that matched names a route; what clients send must not
	// make labels.
	route := "other"
	if _, path, ok := strings.Cut(r.Pattern, "/"); ok {
		route, _, _ = strings.Cut(path, "/")
	}
	code := "none"
	if rec.status != 0 {
		code = strconv.Itoa(rec.status)
	}
	c.requests.WithLabelValues(route, code).Inc()
	if route == "blobs" && (rec.status == http.StatusOK || rec.status == http.StatusPartialContent) {
		c.bytes.Add(float64(rec.written))
	}
}

// metrics makes the handler of /metrics.
func (h *Handler) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		h.counters.requests, h.counters.bytes, h.counters.streams,
	)
	if h.opt.Collect != nil {
		registry.MustRegister(collector(h.opt.Collect))
	}
	next := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            errorLog{h},
		MaxRequestsInFlight: 4,
	})
	// Those who do not read must not keep the few slots.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(newPaced(w, h.opt.Stall), r) })
}

// errorLog passes on what promhttp complains about.
type errorLog struct{ h *Handler }

func (l errorLog) Println(v ...any) { l.h.log.Error("/metrics", "error", v) }

// collector makes a prometheus.Collector of Options.Collect.
type collector func(add func(Metric))

// Describe describes nothing: which numbers there are depends on what happened.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the numbers of this moment.
func (c collector) Collect(out chan<- prometheus.Metric) {
	c(func(m Metric) {
		made, err := m.prometheus()
		if err != nil {
			made = prometheus.NewInvalidMetric(prometheus.NewDesc(m.Name, m.Help, nil, nil), err)
		}
		out <- made
	})
}

func (m Metric) prometheus() (prometheus.Metric, error) {
	var names, values []string
	for i, s := range m.Labels {
		if i%2 == 0 {
			names = append(names, s)
		} else {
			values = append(values, s)
		}
	}
	desc := prometheus.NewDesc(m.Name, m.Help, names, nil)
	switch m.Kind {
	case Counter:
		return prometheus.NewConstMetric(desc, prometheus.CounterValue, m.Value, values...)
	case Histogram:
		return prometheus.NewConstHistogram(desc, m.Count, m.Value, m.Buckets, values...)
	default:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, m.Value, values...)
	}
}
