package tlsalert

import "sync/atomic"

// A Counter counts alerts, without locks. The zero value is ready for use.
type Counter struct {
	counts     [2][2][256]atomic.Uint64 // by origin, fatal, number
	unreadable atomic.Uint64
	truncated  atomic.Uint64
}

// A Count is how often one alert was seen.
type Count struct {
	Alert  Alert  `json:"alert"`
	Origin Origin `json:"origin"`
	Fatal  bool   `json:"fatal"`
	Times  uint64 `json:"times"`
}

// Add counts an alert. An alert without an origin is not counted.
func (c *Counter) Add(a Alert, o Origin, fatal bool) {
	if n := c.at(a, o, fatal); n != nil {
		n.Add(1)
	}
}

func (c *Counter) at(a Alert, o Origin, fatal bool) *atomic.Uint64 {
	if o != Sent && o != Received {
		return nil
	}
	level := 0
	if fatal {
		level = 1
	}
	return &c.counts[o-Sent][level][a]
}

// AddUnreadable counts a received warning whose number was encrypted: up to TLS 1.2
// crypto/tls silently drops those.
func (c *Counter) AddUnreadable() { c.unreadable.Add(1) }

// AddTruncated counts a connection that ended without close_notify.
func (c *Counter) AddTruncated() { c.truncated.Add(1) }

// Unreadable returns how many encrypted warnings were received.
func (c *Counter) Unreadable() uint64 { return c.unreadable.Load() }

// Truncated returns how many connections ended without close_notify.
func (c *Counter) Truncated() uint64 { return c.truncated.Load() }

// Counts returns the counts by origin, level and number, without alerts that were never
// seen.
func (c *Counter) Counts() []Count {
	var all []Count
	for _, o := range []Origin{Sent, Received} {
		for _, fatal := range []bool{false, true} {
			for n := range 256 {
				if times := c.at(Alert(n), o, fatal).Load(); times > 0 {
					all = append(all, Count{Alert(n), o, fatal, times})
				}
			}
		}
	}
	return all
}
