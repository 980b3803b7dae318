package hsm

import (
	"crypto/subtle"
	"fmt"
)

// Refresh has every provisioned key looked for again when it is looked up next: other
// programs may have made new versions, or destroyed old ones.
func (s *Store) Refresh() {
	s.rings.mu.RLock()
	var labels []string
	for label := range s.rings.labels {
		labels = append(labels, label)
	}
	s.rings.mu.RUnlock()
	for _, label := range labels {
		s.rings.outdate(label)
	}
}

// RenewPIN reads the PIN again, from source or the pin-source of the URI, for the next
// login. One that the token refused is given again only if it is another one. A store
// that opened its token without a PIN needs none.
func (c *connection) RenewPIN(source PINSource) error {
	if source == "" {
		source = PINSource(c.access.uri.PINSource)
	}
	if c.isClosed() {
		return errClosed
	}
	none := false
	if err := c.mod.inside(c.wait, func() error { none = c.access.pin == nil; return nil }); err != nil || none {
		return err
	}
	p, err := source.read()
	if err != nil {
		return err
	}
	old := p
	err = c.mod.alone(c.wait, func() error {
		if c.isClosed() {
			return errClosed
		}
		if subtle.ConstantTimeCompare(c.access.pin.bytes(), p.bytes()) == 0 {
			old, c.access.pin = c.access.pin, p
			c.access.refused.Store(nil)
		}
		return nil
	})
	old.wipe()
	if err != nil {
		return fmt.Errorf("hsm: take another PIN: %w", err)
	}
	return nil
}
