package isolated

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Joint = cipherKey{}

// Joins reports whether mac is in the same child.
func (k cipherKey) Joins(mac keystore.MAC) bool {
	other, ok := mac.(macKey)
	return ok && other.store.supervisor == k.store.supervisor
}

// joint makes a call with both keys of a message.
func (k cipherKey) joint(op operation, mac keystore.MAC, write func(message) message, use func(*fields) error) error {
	own, err := k.store.own(mac)
	if err != nil {
		return err
	}
	return k.store.do(op, func(p *process) error {
		cipher, err := k.in(p)
		if err != nil {
			return err
		}
		handle, err := own.in(p)
		if err != nil {
			return err
		}
		return p.call(k.store.config.limit(), op, func(m message) message { return write(m.number(cipher).number(handle)) }, use)
	})
}

// OpenAll verifies and decrypts in the child.
func (k cipherKey) OpenAll(mac keystore.MAC, all []keystore.Opening) (opened int, err error) {
	err = k.joint(opOpenAll, mac, func(m message) message {
		m = m.number(uint64(len(all)))
		for i := range all {
			m = m.bytes(all[i].Data).bytes(all[i].Tag).bytes(all[i].IV).bytes(all[i].Ciphertext)
		}
		return m
	}, func(f *fields) (err error) {
		opened, err = readOpened(f, all)
		return err
	})
	return opened, err
}

// readOpened reads how many were opened, these, and why the next one was not.
func readOpened(f *fields, all []keystore.Opening) (opened int, err error) {
	n := f.number()
	if n > uint64(len(all)) {
		return 0, malformedAnswer()
	}
	for i := range all[:n] {
		all[i].Plaintext = append(all[i].Plaintext, f.bytes()...)
	}
	if f.bad {
		return 0, malformedAnswer()
	}
	if int(n) == len(all) {
		return len(all), nil
	}
	set, text := f.number(), f.text()
	return int(n), newChildError(text, set)
}

func malformedAnswer() error { return fmt.Errorf("%w: %w", errMalformed, keystore.ErrUnavailable) }

// SealAll encrypts and signs in the child.
func (k cipherKey) SealAll(mac keystore.MAC, all []keystore.Sealing) error {
	return k.joint(opSealAll, mac, func(m message) message {
		m = m.number(uint64(len(all)))
		for i := range all {
			m = m.bytes(all[i].IV).bytes(all[i].Plaintext).bytes(all[i].Before).bytes(all[i].After)
		}
		return m
	}, func(f *fields) error {
		for i := range all {
			all[i].Ciphertext = append(all[i].Ciphertext, f.bytes()...)
			all[i].Tag = append(all[i].Tag, f.bytes()...)
		}
		return nil
	})
}

// maxParts bounds the parts of a joint call; those of a message are two.
const maxParts = 16

// pair returns the keys that a joint call begins with, and how many parts follow.
func (s *server) pair(f *fields) (c keystore.Cipher, m keystore.MAC, parts uint64, err error) {
	cipher, mac, parts := f.number(), f.number(), f.number()
	if f.bad || parts > maxParts {
		return nil, nil, 0, errMalformed
	}
	if c, err = keyAs[keystore.Cipher](s, cipher); err == nil {
		m, err = keyAs[keystore.MAC](s, mac)
	}
	return c, m, parts, err
}

func (s *server) openAll(f *fields, m message) (message, error) {
	cipher, mac, parts, err := s.pair(f)
	if err != nil {
		return nil, err
	}
	all := make([]keystore.Opening, parts)
	for i := range all {
		all[i] = keystore.Opening{Data: f.bytes(), Tag: f.bytes(), IV: f.bytes(), Ciphertext: f.bytes()}
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	opened := 0
	for opened < len(all) && err == nil {
		if err = openOne(cipher, mac, &all[opened]); err == nil {
			opened++
		}
	}
	m = m.number(uint64(opened))
	for i := range all[:opened] {
		m = m.bytes(all[i].Plaintext)
		clear(all[i].Plaintext)
	}
	if err != nil {
		m = m.number(kindsOf(err)).text(err.Error())
	}
	return m, nil
}

var errTag = fmt.Errorf("isolated: open: %w", keystore.ErrBadTag)

// openOne verifies, in constant time, and then decrypts.
func openOne(cipher keystore.Cipher, mac keystore.MAC, o *keystore.Opening) error {
	tag, err := keystore.AppendSum(mac, nil, o.Data)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(tag, o.Tag) != 1 {
		return errTag
	}
	o.Plaintext, err = keystore.AppendDecrypt(cipher, nil, o.IV, o.Ciphertext)
	return err
}

func (s *server) sealAll(f *fields, m message) (message, error) {
	cipher, mac, parts, err := s.pair(f)
	if err != nil {
		return nil, err
	}
	all := make([]keystore.Sealing, parts)
	for i := range all {
		all[i] = keystore.Sealing{IV: f.bytes(), Plaintext: f.bytes(), Before: f.bytes(), After: f.bytes()}
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	for i := range all {
		if err := sealOne(cipher, mac, &all[i]); err != nil {
			return nil, err
		}
		m = m.bytes(all[i].Ciphertext).bytes(all[i].Tag)
	}
	return m, nil
}

// sealOne encrypts, and signs the ciphertext as it is sent.
func sealOne(cipher keystore.Cipher, mac keystore.MAC, s *keystore.Sealing) (err error) {
	s.Ciphertext, err = keystore.AppendEncrypt(cipher, nil, s.IV, s.Plaintext)
	if err != nil {
		return err
	}
	signed := make([]byte, 0, len(s.Before)+base64.StdEncoding.EncodedLen(len(s.Ciphertext))+len(s.After))
	signed = base64.StdEncoding.AppendEncode(append(signed, s.Before...), s.Ciphertext)
	s.Tag, err = keystore.AppendSum(mac, nil, append(signed, s.After...))
	return err
}
