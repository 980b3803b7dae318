//go:build !nometrics

package metrics

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// device are the metrics of the key store.
type device struct {
	queue    prometheus.Observer
	seconds  *byName[prometheus.Observer]
	failures *prometheus.CounterVec
}

func newDevice(to *prometheus.Registry) device {
	queue := histogram("keystore_queue_seconds", "Time that operations waited until the device was free for them.", fine)
	seconds := histogram("keystore_call_seconds", "Time of operations in the device, by the function that does the work.", fine, "function")
	failures := counter("keystore_errors_total", "Operations of the device that failed, by what that means.", "function", "error")
	to.MustRegister(queue, seconds, failures)
	return device{queue: queue.WithLabelValues(), failures: failures,
		seconds: newByName(func(name string) prometheus.Observer { return seconds.WithLabelValues(name) })}
}

func (d *device) count(c keystore.Call) {
	if c.Function != "" || c.Queue > 0 { // else nothing could reach the device
		d.queue.Observe(c.Queue.Seconds())
	}
	if c.Function != "" {
		d.seconds.of(c.Function).Observe(c.Run.Seconds())
	}
	if c.Err != nil {
		d.failures.WithLabelValues(c.Function, kindOf(c.Err)).Inc()
	}
}

// kindOf says what an error of a device means.
func kindOf(err error) string {
	for _, k := range []struct {
		name string
		err  error
	}{
		{"lost", keystore.ErrLost}, {"busy", keystore.ErrBusy}, {"pin", keystore.ErrPIN}, {"locked", keystore.ErrLocked},
		{"unsupported", errors.ErrUnsupported}, {"not-found", keystore.ErrNotFound}, {"unavailable", keystore.ErrUnavailable},
	} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return other
}

// upstream are the metrics of the service behind a gateway.
type upstream struct {
	seconds  *byName[prometheus.Observer]
	requests *prometheus.CounterVec
}

func newUpstream(to *prometheus.Registry) upstream {
	seconds := histogram("upstream_seconds", "Time until the response of the service behind the gateway began.", coarse, "target")
	requests := counter("upstream_requests_total", "Requests to the service behind the gateway, by the class of the status; none means no response.", "target", "status")
	to.MustRegister(seconds, requests)
	return upstream{requests: requests,
		seconds: newByName(func(name string) prometheus.Observer { return seconds.WithLabelValues(name) })}
}

func (u *upstream) count(c mslhttp.UpstreamCall) {
	u.seconds.of(c.Target).Observe(c.Took.Seconds())
	u.requests.WithLabelValues(c.Target, classOf(c.Status)).Inc()
}

// byName has one series for each name, of which there are few: all is copied for a new one,
// so that looking one up takes no lock and makes no garbage.
type byName[T any] struct {
	make func(name string) T
	mu   sync.Mutex // of those who add one
	all  atomic.Pointer[map[string]T]
}

func newByName[T any](make func(name string) T) *byName[T] {
	b := &byName[T]{make: make}
	b.all.Store(&map[string]T{})
	return b
}

func (b *byName[T]) of(name string) T {
	if v, ok := (*b.all.Load())[name]; ok {
		return v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := maps.Clone(*b.all.Load())
	v, ok := all[name]
	if !ok {
		v = b.make(name)
		all[name] = v
		b.all.Store(&all)
	}
	return v
}
