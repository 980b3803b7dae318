//go:build !nometrics

package metrics

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A Set is all metrics of a server. It is safe for concurrent use.
type Set struct {
	registry *prometheus.Registry
	messages messages
	device   device
	state    map[string]timed
	upstream upstream
}

// New makes the metrics of a server of that version.
func New(version, revision string) *Set {
	s := &Set{registry: prometheus.NewRegistry(), state: map[string]timed{}}
	s.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.messages = newMessages(s.registry)
	s.device = newDevice(s.registry)
	s.upstream = newUpstream(s.registry)
	info := gauge("build_info", "The version that runs; always 1.", "version", "revision")
	s.registry.MustRegister(info)
	info.WithLabelValues(version, revision).Set(1)
	seconds := histogram("state_seconds", "Time of a step in the state.", fine, "operation")
	failures := counter("state_errors_total", "Steps in the state that failed.", "operation")
	s.registry.MustRegister(seconds, failures)
	for _, op := range StateOperations() {
		s.state[op] = timed{seconds.WithLabelValues(op), failures.WithLabelValues(op)}
	}
	return s
}

// Handler answers with all metrics in the format of Prometheus.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry, ErrorHandling: promhttp.HTTPErrorOnError})
}

// Message counts a message that the server has finished with.
func (s *Set) Message(v msl.Served) { s.messages.count(v) }

// Call measures an operation of the key store.
func (s *Set) Call(c keystore.Call) { s.device.count(c) }

// Upstream measures a request to the service behind a gateway.
func (s *Set) Upstream(c mslhttp.UpstreamCall) { s.upstream.count(c) }

// State measures a step in the state, which is one of [StateOperations].
func (s *Set) State(operation string, took time.Duration, err error) {
	series, ok := s.state[operation]
	if !ok {
		return
	}
	series.seconds.Observe(took.Seconds())
	if err != nil {
		series.failures.Inc()
	}
}

// Watch makes collect be called for values whenever the metrics are read.
func (s *Set) Watch(collect func() []Value) { s.registry.MustRegister(watched(collect)) }

// watched are values collected on demand. It describes none in advance.
type watched func() []Value

// Describe describes nothing: the configuration determines which values there are.
func (watched) Describe(chan<- *prometheus.Desc) {}

// Collect collects the values.
func (w watched) Collect(to chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, v := range w() {
		names, values := v.labels()
		id := fmt.Sprint(v.Name, v.Labels)
		if seen[id] {
			continue // such as a certificate named twice
		}
		seen[id] = true
		kind := prometheus.GaugeValue
		if v.Counts {
			kind = prometheus.CounterValue
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(prefix+v.Name, v.Help, names, nil), kind, v.Value, values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(prometheus.NewDesc(prefix+v.Name, v.Help, names, nil), err)
		}
		to <- m
	}
}

// timed are the series of a step that takes time and may fail.
type timed struct {
	seconds  prometheus.Observer
	failures prometheus.Counter
}

const prefix = "msl_hsm_"

// fine are histogram bounds for steps within this machine, coarse for those that involve
// others, in seconds.
var (
	fine   = []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10}
	coarse = []float64{250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10, 30, 60}
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
}

func histogram(name, help string, bounds []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: bounds}, labels)
}

// classOf is the class of an HTTP status, such as 2xx, or "none". Some services answer
// with statuses that no RFC defines, up to 999.
func classOf(status int) string {
	if status < 100 || status > 999 {
		return "none"
	}
	return strconv.Itoa(status/100) + "xx"
}
