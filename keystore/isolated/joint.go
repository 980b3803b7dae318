package isolated

import (
	"encoding/base64"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/keystore"
)

var _ keystore.Joint = cipherKey{}

// Joins reports whether mac is in the same child.
func (k cipherKey) Joins(mac keystore.MAC) bool {
	other, ok := mac.(macKey)
	return ok && other.store.supervisor == k.store.supervisor
}

// joint makes a call with both keys of a message, for so many parts of it.
func (k cipherKey) joint(op operation, mac keystore.MAC, parts int, write func(message) message, use func(*fields) error) error {
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
		return p.paced(2*parts, func() error {
			return p.call(k.store.config.limit(), op, func(m message) message {
				return write(m.number(cipher).number(handle).number(uint64(parts)))
			}, use)
		})
	})
}

// paced times a call of several operations with session keys, as one of them.
func (p *process) paced(operations int, call func() error) error {
	start := p.pace.Begin(0)
	err := call()
	if err == nil && !start.IsZero() && operations > 0 {
		p.pace.End(time.Now().Add(-time.Since(start) / time.Duration(operations)))
	}
	return err
}

// OpenAll verifies and decrypts in the child.
func (k cipherKey) OpenAll(mac keystore.MAC, all []keystore.Opening) (opened int, err error) {
	err = k.joint(opOpenAll, mac, len(all), func(m message) message {
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
	return k.joint(opSealAll, mac, len(all), func(m message) message {
		for i := range all {
			m = m.bytes(all[i].IV).bytes(all[i].Plaintext).bytes(all[i].Before).bytes(all[i].After)
		}
		return m
	}, func(f *fields) error {
		for i := range all {
			all[i].Data = append(all[i].Data, f.bytes()...)
			all[i].Tag = append(all[i].Tag, f.bytes()...)
		}
		return nil
	})
}

// maxParts bounds the parts of a joint call; those of a message are two.
const maxParts = 16

// pairOf returns the keys that a joint call begins with, and how many parts follow.
func pairOf(s *server, f *fields) (c keystore.Cipher, m keystore.MAC, parts uint64, err error) {
	cipher, mac, parts := f.number(), f.number(), f.number()
	if f.bad || parts > maxParts {
		return nil, nil, 0, errMalformed
	}
	if c, err = keyAs[keystore.Cipher](s, cipher); err == nil {
		m, err = keyAs[keystore.MAC](s, mac)
	}
	return c, m, parts, err
}

func openAll(s *server, f *fields, m message) (message, error) {
	cipher, mac, parts, err := pairOf(s, f)
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
	room := s.rooms.Get().(*room)
	defer room.free(&s.rooms)
	return room.open(m, cipher, mac, all), nil
}

// A room is memory for the parts of a joint call, to be used again.
type room struct{ text, tag []byte }

func newRoom() any { return new(room) }

// free makes a room available again, without what it was used for.
func (r *room) free(rooms *sync.Pool) {
	clear(r.text[:cap(r.text)])
	if cap(r.text) > buffer {
		r.text = nil
	}
	rooms.Put(r)
}

// open answers with how many parts were opened, these, and why the next one was not.
func (r *room) open(m message, cipher keystore.Cipher, mac keystore.MAC, all []keystore.Opening) message {
	count := len(m)
	m = append(m, 0) // of no more than maxParts, which is one byte
	for i, o := range all {
		if err := r.openOne(cipher, mac, o); err != nil {
			return m.number(kindsOf(err)).text(err.Error())
		}
		m = m.bytes(r.text)
		m[count] = byte(i + 1)
	}
	return m
}

// openOne verifies, in constant time, and then decrypts.
func (r *room) openOne(cipher keystore.Cipher, mac keystore.MAC, o keystore.Opening) (err error) {
	r.tag, err = keystore.Verify(mac, r.tag[:0], o.Data, o.Tag)
	if err != nil {
		return err
	}
	text, err := keystore.AppendDecrypt(cipher, r.text[:0], o.IV, o.Ciphertext)
	if err == nil {
		r.text = text
	}
	return err
}

func sealAll(s *server, f *fields, m message) (message, error) {
	cipher, mac, parts, err := pairOf(s, f)
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
	room := s.rooms.Get().(*room)
	defer room.free(&s.rooms)
	for _, part := range all {
		if err := room.seal(cipher, mac, part); err != nil {
			return nil, err
		}
		m = m.bytes(room.text).bytes(room.tag)
	}
	return m, nil
}

// seal encrypts, and signs the ciphertext as it is sent.
func (r *room) seal(cipher keystore.Cipher, mac keystore.MAC, s keystore.Sealing) error {
	padded := cbc.Padded(len(s.Plaintext))
	r.text = slices.Grow(r.text[:0], len(s.Before)+base64.StdEncoding.EncodedLen(padded)+len(s.After)+padded)
	signed := append(r.text, s.Before...)
	at := cap(r.text) - padded // out of the way of the text
	ciphertext, err := keystore.AppendEncrypt(cipher, r.text[at:at], s.IV, s.Plaintext)
	if err != nil {
		return err
	}
	r.text = append(base64.StdEncoding.AppendEncode(signed, ciphertext), s.After...)
	r.tag, err = keystore.AppendSum(mac, r.tag[:0], r.text)
	return err
}
