package isolated

import (
	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Changing = (*Store)(nil)

// Refresh has provisioned keys looked for again in the child.
func (s *Store) Refresh(labels ...string) error {
	return s.ask(opRefresh, func(m message) message {
		m = m.number(uint64(len(labels)))
		for _, label := range labels {
			m = m.text(label)
		}
		return m
	}, nil)
}

// SealWith chooses the version that seals in the child. A child that takes the place of
// this one seals with the newest, until it is told again.
func (s *Store) SealWith(label string, version uint32) error {
	return s.ask(opSealWith, func(m message) message { return m.text(label).number(uint64(version)) }, nil)
}

func refresh(s *server, f *fields, m message) (message, error) {
	var labels []string
	for n := f.number(); n > 0 && !f.bad; n-- {
		labels = append(labels, f.text())
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	store, err := as[keystore.Changing](s.store)
	if err != nil {
		return nil, err
	}
	return m, store.Refresh(labels...)
}

func sealWith(s *server, f *fields, m message) (message, error) {
	label, version := f.text(), uint32(f.number())
	if err := f.end(); err != nil {
		return nil, err
	}
	store, err := as[keystore.Changing](s.store)
	if err != nil {
		return nil, err
	}
	return m, store.SealWith(label, version)
}
