//go:build !nometrics

package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
)

// messages are the metrics of messages.
type messages struct {
	results       map[string]*result
	read, written prometheus.Counter
	handshakes    map[string]prometheus.Counter // by key exchange
	authenticated map[string]prometheus.Counter // by entity scheme
	refusals      *prometheus.CounterVec
	replays       prometheus.Counter
}

// A result has the metrics of the messages with one [msl.Served.Result].
type result struct {
	number  [msl.Faults]prometheus.Counter // nil where no message has both
	seconds prometheus.Observer
}

func newMessages(to *prometheus.Registry) messages {
	byResult := counter("messages_total", "Messages that the server has finished with, by result and whose fault it was.", "result", "fault")
	seconds := histogram("message_seconds", "Time from the first byte of a message until the network had its answer.", coarse, "result")
	sizes := counter("message_bytes_total", "Bytes of messages.", "direction")
	handshakes := counter("handshakes_total", "Answers that delivered session keys, by key exchange.", "scheme")
	authenticated := counter("entity_authentications_total", "Messages whose sender proved its identity without a master token, by scheme.", "scheme")
	refusals := counter("refusals_total", "Messages that were answered with an error, by its code.", "code", "name")
	replays := counter("replays_total", "Messages that were refused as a replay.")
	to.MustRegister(byResult, seconds, sizes, handshakes, authenticated, refusals, replays)
	m := messages{
		results: map[string]*result{}, read: sizes.WithLabelValues("read"), written: sizes.WithLabelValues("written"), refusals: refusals, replays: replays.WithLabelValues(),
		handshakes: series(handshakes, config.ExchangeSchemes()), authenticated: series(authenticated, config.EntitySchemeNames()),
	}
	for _, name := range []string{"answered", "handshake", "refused", "unanswered"} {
		r := &result{seconds: seconds.WithLabelValues(name)}
		for f := range msl.Faults {
			if (f == msl.NoFault) == (name == "answered" || name == "handshake") {
				r.number[f] = byResult.WithLabelValues(name, f.String())
			}
		}
		m.results[name] = r
	}
	return m
}

// other is the label for schemes that this program does not know.
const other = "other"

// series makes one series for each value of a label, and one for all others.
func series(all *prometheus.CounterVec, values []string) map[string]prometheus.Counter {
	m := map[string]prometheus.Counter{}
	for _, value := range append(values, other) {
		m[value] = all.WithLabelValues(value)
	}
	return m
}

func (m *messages) count(v msl.Served) {
	r := m.results[v.Result()]
	if c := r.number[v.Fault]; c != nil {
		c.Inc()
	}
	r.seconds.Observe(v.Took.Seconds())
	m.read.Add(float64(v.Read))
	m.written.Add(float64(v.Written))
	if v.Authenticated && v.Scheme != "" {
		one(m.authenticated, v.Scheme).Inc()
	}
	if v.KeyExchange != "" && v.Err == nil {
		one(m.handshakes, v.KeyExchange).Inc()
	}
	if v.Response != 0 {
		m.refuse(v.Code)
	}
}

func (m *messages) refuse(code msl.Code) {
	number, name := other, other
	if known := code.Name(); known != "" {
		number, name = strconv.Itoa(int(code)), known
	}
	m.refusals.WithLabelValues(number, name).Inc()
	if code == msl.ErrMessageReplayed || code == msl.ErrMessageReplayedUnrecoverable {
		m.replays.Inc()
	}
}

func one(all map[string]prometheus.Counter, name string) prometheus.Counter {
	if c, ok := all[name]; ok {
		return c
	}
	return all[other]
}
