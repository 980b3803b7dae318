package tpm

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An entity is what a handle in a command stands for.
type entity struct {
	handle uint32
	name   []byte // TPM Name; a sequence object has an empty one
	auth   []byte // authorization value, without trailing zero bytes
}

// A command is marshalled by hand, without reflection: package tpm2 takes about 70 ns per
// byte, and cannot share a session among stores.
type command struct {
	code     uint32
	handles  []entity
	password bool     // the first handle is authorized by its value in clear
	session  *session // or by a session; with neither, the command needs none
	params   []byte
	// The first parameter of the command or of the response, a TPM2B, is
	// encrypted on the bus.
	secretIn, secretOut bool
	makes               bool // the response starts with a handle
}

// A response is valid until the next command.
type response struct {
	handle uint32
	params []byte
}

// An executor runs commands, and loads the objects and starts the sessions they need. The
// TCG calls this layer an ESAPI. It belongs to the goroutine that has the Device's turn.
type executor struct {
	resources *resources
	caps      Capabilities
	roots     []*object // storage keys
	null      *object   // a key of the null hierarchy, for the current operation

	hierarchies hierarchies
	guessed     map[string]bool // TPM Names of entities with a non-empty password
}

// run sends a command and parses its response (TPM 2.0 Library, Part 1, clause 16).
func (x *executor) run(c command) (response, error) {
	sent, nonce := c.bytes()
	raw, err := x.resources.send(sent)
	if err != nil {
		return response{}, err
	}
	var r response
	if rc := tpm2.TPMRC(code(raw)); rc != tpm2.TPMRCSuccess {
		err = &Error{Command: commandName(c.code), Code: rc}
	} else if r, err = c.open(raw[10:], nonce); err != nil {
		err = fmt.Errorf("tpm: %s: %w", commandName(c.code), err)
	}
	if err != nil && c.session != nil {
		// Errors are not authenticated: the session may be out of step with
		// the TPM, which would look like a wrong PIN.
		x.resources.dropSession(c.session)
	}
	return r, err
}

// bytes marshals a command. In a session it has a nonce, with which the response is
// checked.
func (c command) bytes() (b, nonce []byte) {
	b = make([]byte, 10, 256+len(c.params))
	binary.BigEndian.PutUint32(b[6:], c.code)
	for _, e := range c.handles {
		b = binary.BigEndian.AppendUint32(b, e.handle)
	}
	tag := tpm2.TPMSTNoSessions
	switch {
	case c.session != nil:
		tag = tpm2.TPMSTSessions
		nonce = make([]byte, sessionHash)
		rand.Read(nonce) // never fails
		b = c.session.authorize(b, c, nonce)
	case c.password:
		tag = tpm2.TPMSTSessions
		b = binary.BigEndian.AppendUint32(b, uint32(9+len(c.handles[0].auth)))
		b = binary.BigEndian.AppendUint32(b, passwordAuth)
		b = append(b, 0, 0, 0)
		b = append16(b, c.handles[0].auth)
	}
	b = append(b, c.params...)
	binary.BigEndian.PutUint16(b, uint16(tag))
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b, nonce
}

// open parses the body of a response and checks its authorization.
func (c command) open(b, nonce []byte) (r response, err error) {
	if c.makes {
		if len(b) < 4 {
			return r, errAnswer()
		}
		r.handle, b = binary.BigEndian.Uint32(b), b[4:]
	}
	if c.session == nil && !c.password {
		r.params = b
		return r, nil
	}
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
		return r, errAnswer()
	}
	n := binary.BigEndian.Uint32(b)
	r.params, b = b[4:4+n], b[4+n:]
	if c.session != nil {
		err = c.session.check(c, r.params, b, nonce)
	}
	return r, err
}

// authorize encrypts the first parameter in place and appends the
// authorization area.
func (s *session) authorize(b []byte, c command, nonce []byte) []byte {
	key, copied := s.authKey(c)
	defer clear(copied)
	attributes := byte(attrContinue)
	if c.secretOut {
		attributes |= attrEncrypt
	}
	if c.secretIn {
		attributes |= attrDecrypt
		n := binary.BigEndian.Uint16(c.params)
		crypt(key, nonce, s.nonce, c.params[2:2+n], false)
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, c.code))
	for _, e := range c.handles {
		h.Write(e.name)
	}
	h.Write(c.params)
	tag := s.mac(key, h, nonce, s.nonce, attributes)
	b = binary.BigEndian.AppendUint32(b, uint32(4+2+len(nonce)+1+2+len(tag)))
	b = binary.BigEndian.AppendUint32(b, s.handle)
	b = append(append16(b, nonce), attributes)
	return append16(b, tag)
}

// authKey returns the session key followed by the authorization value of the first
// handle. If there is such a value, both are a copy, which the caller must clear.
func (s *session) authKey(c command) (key, copied []byte) {
	key = s.key.Bytes()
	if len(c.handles) == 0 || len(c.handles[0].auth) == 0 {
		return key, nil
	}
	copied = slices.Concat(key, c.handles[0].auth)
	return copied, copied
}

// check checks the authorization of a response, and decrypts its first parameter in
// place.
func (s *session) check(c command, params, area, nonce []byte) error {
	newer, rest, ok := cut16(area)
	if !ok || len(rest) < 1 {
		return errAnswer()
	}
	tag, end, ok := cut16(rest[1:])
	if !ok || len(end) > 0 {
		return errAnswer()
	}
	key, copied := s.authKey(c)
	defer clear(copied)
	h := sha256.New()
	h.Write(make([]byte, 4)) // TPM_RC_SUCCESS
	h.Write(binary.BigEndian.AppendUint32(nil, c.code))
	h.Write(params)
	if !hmac.Equal(tag, s.mac(key, h, newer, nonce, rest[0])) {
		return fmt.Errorf("the answer was changed on the way, or is not from this TPM: %w", keystore.ErrUnavailable)
	}
	s.nonce = append(s.nonce[:0], newer...)
	if c.secretOut {
		first, _, ok := cut16(params)
		if !ok || rest[0]&attrEncrypt == 0 {
			return errAnswer()
		}
		crypt(key, newer, nonce, first, true)
	}
	return nil
}

// append16 appends a TPM2B.
func append16(to, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(b))), b...)
}

// cut16 splits off a TPM2B.
func cut16(b []byte) (first, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n:n], b[n:], true
}
