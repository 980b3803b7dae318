package hsm

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// The names of the checks, which Config.AllowWeak takes too.
const (
	checkValue  = "value-unreadable"
	checkRewrap = "rewrap-refused"
	checkLock   = "lock"
	checkUnwrap = "unwrap-closed"
	checkTamper = "tamper-refused"
	checkSame   = "wrap-unwrap"
	checkHMAC   = "hmac-sha256"
	checkPeer1  = "oaep-sha1"
	checkPad    = "cbc-pad" // for information
)

// A Check is one property of a module and what came of trying it.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // Open refuses the module without it
	Detail   string `json:"detail,omitempty"`
}

// A Report is what a module was seen to do.
type Report []Check

// A prober tries a module with keys that it throws away.
type prober struct {
	*Store
	session uint
	made    []uint
	report  Report
}

// Probe tries the properties of the module that this package relies on, with
// keys that it throws away.
func (s *Store) Probe() (Report, error) {
	var report Report
	err := s.attempt(func() error {
		return s.on(s.sessions, 0, func(session uint) error {
			p := &prober{Store: s, session: session}
			p.run()
			report = p.report
			return nil
		})
	})
	return report, s.explain(err)
}

// prove refuses a module or sealing keys that do not protect.
func (s *Store) prove() error {
	report, err := s.Probe()
	if err != nil {
		return err
	}
	var failed []string
	for _, c := range report {
		if c.Required && !c.OK {
			failed = append(failed, c.Name+": "+Weaknesses()[c.Name]+" ("+c.Detail+")")
		}
	}
	if failed = s.notAllowed(failed); len(failed) > 0 {
		return fmt.Errorf("hsm: %s: %w: %s; a weakness that must be lived with has to be allowed by name", s.mod.path, keystore.ErrWeakKey, strings.Join(failed, "; "))
	}
	for _, a := range []keystore.Algorithm{keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256} {
		if _, err := s.ring(s.sealLabel(a)); err != nil && !errors.Is(err, keystore.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (p *prober) run() {
	defer func() {
		for _, h := range p.made {
			_ = p.destroy(p.session, h) // it dies with the session otherwise
		}
	}()
	kek, err := p.key(keystore.AESWrap128, template{}.number(pkcs11.CKA_VALUE_LEN, 16), pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP)
	if err == nil {
		var victim uint
		if victim, err = p.key(keystore.HMACSHA256, template{}.number(pkcs11.CKA_VALUE_LEN, 32), pkcs11.CKA_SIGN); err == nil {
			p.closed(kek, victim)
		}
	}
	if err != nil {
		p.note(checkSame, true, false, err)
	}
	p.hmac()
	p.peer()
}

// note writes a result down.
func (p *prober) note(name string, required, ok bool, err error) {
	c := Check{Name: name, OK: ok, Required: required}
	if err != nil {
		c.Detail = err.Error()
	}
	p.report = append(p.report, c)
}

// key makes a throwaway key that may leave.
func (p *prober) key(a keystore.Algorithm, t template, usages ...uint) (uint, error) {
	k, err := kindOf(a)
	if err != nil {
		return 0, err
	}
	k.usages = usages
	m, err := p.generate(p.session, k.generate, append(k.secret(false, true), t...))
	if err == nil {
		p.made = append(p.made, m.handle)
	}
	return m.handle, err
}

// closed tries what must keep keys in.
func (p *prober) closed(kek, victim uint) {
	value, err := p.attribute(p.session, victim, pkcs11.CKA_VALUE)
	p.note(checkValue, true, err != nil || len(value) == 0, err)

	wrapped := make([]byte, 40)
	n, err := p.wrap(p.session, ckmKeyWrap, kek, victim, wrapped)
	if err = exactly(n, len(wrapped), err); err != nil {
		p.note(checkSame, true, false, err)
		return
	}
	p.unwrapped(kek, victim, wrapped)

	forged := bytes.Clone(wrapped)
	forged[9] ^= 1
	m, err := p.unwrap(p.session, ckmKeyWrap, kek, forged, p.templates[keystore.HMACSHA256].unseal)
	if err == nil {
		p.made = append(p.made, m.handle)
	}
	p.note(checkTamper, true, err != nil, err)

	m, err = p.set(p.session, victim, template{}.flag(pkcs11.CKA_EXTRACTABLE, false))
	back, _ := p.set(p.session, victim, template{}.flag(pkcs11.CKA_EXTRACTABLE, true))
	p.note(checkLock, true, err == nil && m.extractable == 0 && back.extractable != 1, err)
	_, err = p.wrap(p.session, ckmKeyWrap, kek, victim, wrapped)
	p.note(checkRewrap, true, err != nil, err)
}

// unwrapped asks that an unwrapped key is the same one, and closed.
func (p *prober) unwrapped(kek, victim uint, wrapped []byte) {
	m, err := p.unwrap(p.session, ckmKeyWrap, kek, wrapped, p.templates[keystore.HMACSHA256].unseal)
	if err != nil {
		p.note(checkSame, true, false, err)
		return
	}
	p.made = append(p.made, m.handle)
	one, err1 := p.tag(victim)
	two, err2 := p.tag(m.handle)
	err = errors.Join(err1, err2)
	p.note(checkSame, true, err == nil && bytes.Equal(one, two), err)
	if m.sensitive != 1 || m.extractable != 0 {
		// born repairs such keys, so they are safe if that works.
		m, err = p.set(p.session, m.handle, template{}.flag(pkcs11.CKA_SENSITIVE, true).flag(pkcs11.CKA_EXTRACTABLE, false))
	}
	p.note(checkUnwrap, true, err == nil && m.sensitive == 1 && m.extractable == 0, err)
}

func (p *prober) tag(key uint) ([]byte, error) {
	out := make([]byte, 32)
	n, err := p.sign(p.session, key, pkcs11.CKM_SHA256_HMAC, []byte("probe"), out)
	return out, exactly(n, len(out), err)
}

// hmac compares with the standard library. A module that takes no keys from
// outside is not at fault.
func (p *prober) hmac() {
	raw := make([]byte, 32)
	rand.Read(raw)
	t := append(template{}, p.templates[keystore.HMACSHA256].imported...).add(pkcs11.CKA_VALUE, raw)
	m, err := p.create(p.session, t)
	if err != nil {
		p.note(checkHMAC, false, false, err)
		return
	}
	p.made = append(p.made, m.handle)
	got, err := p.tag(m.handle)
	h := hmac.New(sha256.New, raw)
	h.Write([]byte("probe"))
	p.note(checkHMAC, true, err == nil && hmac.Equal(got, h.Sum(nil)), err)
}

// peer wraps for a public key that nobody has the private half of.
func (p *prober) peer() {
	b := make([]byte, 256)
	rand.Read(b)
	b[0], b[255] = b[0]|0x80, b[255]|1
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
	k, err := p.key(keystore.AES128CBC, template{}.number(pkcs11.CKA_VALUE_LEN, 16), pkcs11.CKA_ENCRYPT)
	if err == nil {
		var n int
		n, err = p.wrapFor(p.session, peerTemplate(public), k, b)
		err = exactly(n, len(b), err)
	}
	p.note(checkPeer1, false, err == nil, err)

	k, err = p.key(keystore.AES128CBC, template{}.number(pkcs11.CKA_VALUE_LEN, 16), pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return
	}
	var iv, block [16]byte
	_, err = p.decrypt(p.session, k, pkcs11.CKM_AES_CBC_PAD, iv[:], block[:], b[:16])
	detail := fmt.Sprintf("bad padding gives the error %v; padding is done in this process", err)
	p.note(checkPad, false, true, errors.New(detail))
}
