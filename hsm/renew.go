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
func (s *Store) RenewPIN(source PINSource) error {
	if source == "" {
		source = PINSource(s.access.uri.PINSource)
	}
	if s.isClosed() {
		return errClosed
	}
	none := false
	if err := s.mod.inside(s.wait, func() error { none = s.access.pin == nil; return nil }); err != nil || none {
		return err
	}
	p, err := source.read()
	if err != nil {
		return err
	}
	old := p
	err = s.mod.alone(s.wait, func() error {
		if s.isClosed() {
			return errClosed
		}
		if subtle.ConstantTimeCompare(s.access.pin.bytes(), p.bytes()) == 0 {
			old, s.access.pin = s.access.pin, p
			s.access.refused.Store(nil)
		}
		return nil
	})
	old.wipe()
	if err != nil {
		return fmt.Errorf("hsm: take another PIN: %w", err)
	}
	return nil
}
