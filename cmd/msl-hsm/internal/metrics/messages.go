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
	results       [results][msl.Faults]prometheus.Counter
	seconds       [results]prometheus.Observer
	read, written prometheus.Counter
	handshakes    map[string]prometheus.Counter // by key exchange
	authenticated map[string]prometheus.Counter // by entity scheme
	refusals      *prometheus.CounterVec
	replays       prometheus.Counter
}

// A result is what became of a message.
type result int

const (
	answered   result = iota // by the application
	handshaken               // only with keys
	refused                  // with an error
	unanswered               // or its answer was truncated
	results
)

var resultNames = [results]string{"answered", "handshake", "refused", "unanswered"}

func resultOf(v *msl.Served) result {
	switch {
	case v.Response != 0:
		return refused
	case v.Err != nil:
		return unanswered
	case v.Message == nil:
		return handshaken
	}
	return answered
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
		read: sizes.WithLabelValues("read"), written: sizes.WithLabelValues("written"), refusals: refusals, replays: replays.WithLabelValues(),
		handshakes: series(handshakes, config.ExchangeSchemes()), authenticated: series(authenticated, config.EntitySchemeNames()),
	}
	for r := range results {
		m.seconds[r] = seconds.WithLabelValues(resultNames[r])
		for f := range msl.Faults {
			if (f == msl.NoFault) == (r == answered || r == handshaken) {
				m.results[r][f] = byResult.WithLabelValues(resultNames[r], f.String())
			}
		}
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
	r := resultOf(&v)
	if c := m.results[r][v.Fault]; c != nil {
		c.Inc()
	}
	m.seconds[r].Observe(v.Took.Seconds())
	m.read.Add(float64(v.Read))
	m.written.Add(float64(v.Written))
	if v.Authenticated && v.Scheme != "" {
		one(m.authenticated, v.Scheme).Inc()
	}
	if v.KeyExchange != "" && v.Err == nil {
		one(m.handshakes, v.KeyExchange).Inc()
	}
	if r == refused {
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
