package hsm

import (
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
)

// Refresh makes the store search the token for these labels, or all labels, again at their
// next Lookup: other programs may have made new versions, or destroyed old ones.
func (s *Store) Refresh(labels ...string) error {
	if len(labels) == 0 {
		labels = s.rings.names()
	}
	for _, label := range labels {
		s.rings.outdate(label)
	}
	return nil
}

// SealWith makes Seal use that version of a sealing key or, if it does not exist, the next
// lower one; zero means the newest.
func (s *Store) SealWith(label string, version uint32) error {
	s.rings.mu.Lock()
	defer s.rings.mu.Unlock()
	if s.rings.chosen == nil {
		s.rings.chosen = map[string]uint32{}
	}
	s.rings.chosen[label] = version
	return nil
}

func (r *rings) names() (labels []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.labels))
}

// RenewPIN reads the PIN again, from source or the pin-source of the URI, for the next
// login. After a refusal the token is given a PIN again only if it differs. A store that
// opened its token without a PIN needs none.
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
			c.access.unclear.Store(0)
			c.log.Info("the PIN differs from the one before: it is given to the token at the next login")
		}
		return nil
	})
	old.wipe()
	if err != nil {
		return fmt.Errorf("hsm: take another PIN: %w", err)
	}
	return nil
}
