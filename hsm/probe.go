package hsm

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// The names of the checks, which Config.AllowWeak also accepts.
const (
	checkValue    = "value-unreadable"
	checkRewrap   = "rewrap-refused"
	checkLock     = "lock"
	checkUnwrap   = "unwrap-closed"
	checkTamper   = "tamper-refused"
	checkSame     = "wrap-unwrap"
	checkHMAC     = "hmac-sha256"
	checkPeer1    = "oaep-sha1"
	checkTemplate = "unwrap-template-kept" // for information
)

// A Check is one property of a module and the result of testing it.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`                // it holds
	Untried  bool   `json:"untried,omitempty"` // it could not be tried: nothing is known
	Required bool   `json:"required"`          // Open refuses the module without it
	Detail   string `json:"detail,omitempty"`

	lacks     bool // Detail is the answer of a module that cannot do it
	tokenOnly bool // since it makes no objects of the session
}

// A Report is how a module behaves.
type Report []Check

// failed are the required checks that do not hold, or could not be tried.
func (r Report) failed(untried bool) []string {
	var names []string
	for _, c := range r {
		if c.Required && !c.OK && c.Untried == untried {
			what := Weaknesses()[c.Name]
			switch {
			case c.Untried: // so nothing is known of the module
				what = "not tried"
			case c.lacks:
				what = "the module cannot do it"
			}
			if c.Detail != "" {
				what += " (" + c.Detail + ")"
			}
			names = append(names, c.Name+": "+what)
		}
	}
	return names
}

// A prober tries a module with keys that it throws away.
type prober struct {
	*inspector
	templates map[keystore.Algorithm]sessionTemplates
	session   uint
	slot      uint
	informs   bool // it tries too what is for information only
	made      []uint
	tag       []byte // of the key that is wrapped, once it was made
	report    Report
}

// Probe tests the properties of the module that this package relies on, with throwaway
// keys. A test that fails, or cannot be run, is repeated once, because a device can fail
// without lacking the property.
func (s *Store) Probe() (Report, error) {
	return probe(s, true)
}

func probe(s *Store, informs bool) (Report, error) {
	report, err := probeOnce(s, informs)
	if err == nil && len(report.failed(false))+len(report.failed(true)) > 0 {
		s.loose.Store(nil) // the module may take now what it did not
		report, err = probeOnce(s, informs)
	}
	return report, s.recovery.explain(err)
}

func probeOnce(s *Store, informs bool) (Report, error) {
	var report Report
	err := s.recovery.attempt(func() error {
		return s.on(s.sessions, 0, func(session uint, epoch uint64) error {
			now, err := s.lifeOf(epoch)
			if err != nil {
				return err
			}
			p := &prober{inspector: s.inspector, templates: s.births.templates, session: session, slot: now.slot, informs: informs}
			err = p.run()
			report = p.report
			relax(p, report)
			if err == nil && slices.ContainsFunc(report, func(c Check) bool { return c.Untried }) {
				return errUntried
			}
			return err
		})
	}, nil)
	if err == errUntried {
		return report, nil
	}
	return report, err
}

// errUntried makes the pool close a session in which a check failed: its operation may still be
// active.
var errUntried = errors.New("hsm: a check could not be tried")

// prove refuses a module or sealing keys that do not protect.
func prove(s *Store) error {
	report, err := probe(s, false)
	if err != nil {
		return err
	}
	if failed := s.inspector.allow.others(report.failed(false)); len(failed) > 0 {
		return fmt.Errorf("hsm: %s: %w: %s", s.mod.path, keystore.ErrWeakKey, report.refusal(failed))
	}
	if untried := s.inspector.allow.others(report.failed(true)); len(untried) > 0 {
		return fmt.Errorf("hsm: %s: whether keys are safe in it could not be tested: %w: %s; try again", s.mod.path, keystore.ErrUnavailable, strings.Join(untried, "; "))
	}
	for _, role := range keystore.SealingRoles() {
		if _, err := s.rings.ring(role.Label(s.inspector.prefix)); err != nil && !errors.Is(err, keystore.ErrNotFound) {
			return err
		}
	}
	return nil
}

// refusal says why a module was refused, and what to do.
func (r Report) refusal(failed []string) string {
	if !slices.ContainsFunc(r, func(c Check) bool { return c.tokenOnly }) {
		return strings.Join(failed, "; ") + "; to accept a weakness, allow it by name"
	}
	var names []string
	var why string // of all the same
	for _, f := range failed {
		var name string
		name, why, _ = strings.Cut(f, ": ")
		names = append(names, name)
	}
	return strings.Join(names, ", ") + ": " + why + "; a server needs session objects, which the vendor would have to add, or keystore.session-keys: memory, with which session keys, and pre-shared keys in use, are in the memory of the process and not in the token; to use key pairs alone, allow each of these by name"
}

// run tries everything. If the device fails outside of a check, the whole probe fails.
func (p *prober) run() (err error) {
	defer func() {
		for _, h := range p.made {
			err = errors.Join(err, p.destroy(p.session, h))
		}
	}()
	p.bare.Store(false) // until this time says so
	kek, err := p.key(keystore.AESWrap128, 16, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP)
	if classOf(err) == classUnsupported || quirkTokenOnly.is(err) { // no attribute of it is one that a module may not know
		p.keyless(err)
		return nil
	}
	if err != nil {
		return err
	}
	free, err := p.key(keystore.AES128CBC, 16, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	if err != nil {
		return err
	}
	victim, err := p.hmac()
	if err != nil {
		return err
	}
	p.closed(kek, victim, free)
	p.keeps(free)
	if p.informs {
		p.peer(free)
		p.digest(victim)
	}
	return p.trusted(kek, free)
}

// keyless writes down for a module without secret keys that nothing of them holds, so
// that each has to be allowed by name before its key pairs are used.
func (p *prober) keyless(err error) {
	p.bare.Store(true)
	for _, name := range []string{checkValue, checkSame, checkUnwrap, checkTamper, checkLock, checkRewrap} {
		p.report = append(p.report, Check{Name: name, Required: true, Detail: err.Error(), lacks: true, tokenOnly: quirkTokenOnly.is(err)})
	}
}

// relax asks less where all keys are provisioned: that their values stay hidden and that
// they are not wrapped. A module that makes no objects of the session cannot be asked;
// then each key is, when it is found.
func relax(p *prober, report Report) {
	if !p.provisioned {
		return
	}
	for i, c := range report {
		about := c.Name == checkValue || c.Name == checkRewrap
		report[i].Required = c.Required && about && !p.bare.Load()
	}
}

// note writes a result down: an error means that the check could not be tried,
// unless the module says that it cannot do such a thing at all.
func (p *prober) note(name string, required, ok bool, err error) {
	c := Check{Name: name, OK: ok && err == nil, Untried: err != nil && classOf(err) != classUnsupported, Required: required}
	if err != nil {
		c.Detail, c.lacks = err.Error(), !c.Untried
	}
	p.report = append(p.report, c)
}

// noteRefusal writes down whether what must fail did.
func (p *prober) noteRefusal(name string, outcome outcome, err error) {
	if err == nil && outcome == unclear {
		err = fmt.Errorf("hsm: the module's answer is not clear: %w", keystore.ErrUnavailable)
	}
	p.note(name, true, outcome == refused, err)
}

// key makes a throwaway key that may leave.
func (p *prober) key(a keystore.Algorithm, size uint, usages ...uint) (uint, error) {
	k, err := kindOf(a)
	if err != nil {
		return 0, err
	}
	k.usages = usages
	m, err := forTrial(p.keyCalls, p.session, k.generate, k.secret(false, true).number(pkcs11.CKA_VALUE_LEN, size))
	p.keep(m)
	return m.handle, err
}

// keep notes an object to be destroyed at the end.
func (p *prober) keep(m made) {
	if m.handle != 0 {
		p.made = append(p.made, m.handle)
	}
}

// closed tries what must keep keys in. free is a key that may leave.
func (p *prober) closed(kek, victim, free uint) {
	value, err := p.attribute(p.session, victim, pkcs11.CKA_VALUE)
	p.note(checkValue, true, len(value) == 0, err)

	f, wrapped, err := p.choose(kek, victim, keystore.HMACSHA256.Size())
	if err != nil {
		p.note(checkSame, true, false, err)
		return
	}
	p.seals.Store(&f)
	if err := bends(p, f, kek, free); err != nil {
		p.note(checkSame, true, false, err)
		return
	}
	p.tampers(f, kek, victim, wrapped)

	err = p.locks(victim)
	if p.note(checkLock, true, true, err); err != nil {
		p.note(checkRewrap, true, false, err)
		return
	}
	wrap := func(key uint, a keystore.Algorithm) func() error {
		return func() error { _, err := f.wrap(p.library, p.session, kek, key, a.Size()); return err }
	}
	outcome, err := mustFail(wrap(victim, keystore.HMACSHA256), wrap(free, keystore.AES128CBC), quirkWrap)
	p.noteRefusal(checkRewrap, outcome, err)
}

// tampers asks that a wrapped key comes back as it was, and not at all if it was changed.
func (p *prober) tampers(f form, kek, victim uint, wrapped []byte) {
	whole := func() error { return p.unwrapped(f, kek, victim, wrapped) }
	if f.weakness != "" {
		// That it can be bent is known.
		p.note(f.weakness, true, false, nil)
		_ = whole() // which notes what fails
		return
	}
	forged := bytes.Clone(wrapped)
	forged[len(forged)-1] ^= 1
	outcome, err := mustFail(func() error {
		_, err := p.unsealOnce(f, kek, forged, p.taken(p.templates[keystore.HMACSHA256].unseal))
		return err
	}, whole, noQuirk)
	p.noteRefusal(checkTamper, outcome, err)
}

// locks makes a key stay in the token, and tries to take that back.
func (p *prober) locks(key uint) error {
	if _, err := p.set(p.session, key, template{}.flag(pkcs11.CKA_EXTRACTABLE, false)); err != nil {
		return err
	}
	_, _ = p.set(p.session, key, template{}.flag(pkcs11.CKA_EXTRACTABLE, true)) // that it fails says less than what follows
	now, err := p.attribute(p.session, key, pkcs11.CKA_EXTRACTABLE)
	if err == nil && !bytes.Equal(now, []byte{0}) {
		err = &Error{Function: "C_SetAttributeValue", Code: pkcs11.CKR_FUNCTION_NOT_SUPPORTED}
	}
	return err
}

// unwrapped asks that an unwrapped key is the same one, and closed.
func (p *prober) unwrapped(f form, kek, victim uint, wrapped []byte) error {
	m, err := p.unseal(f, kek, wrapped)
	if err != nil {
		p.note(checkSame, true, false, err)
		return err
	}
	handle := m.handle
	if m.sensitive != 1 || m.extractable != 0 {
		// born repairs such keys, so they are safe if that works.
		m, err = p.set(p.session, handle, template{}.flag(pkcs11.CKA_SENSITIVE, true).flag(pkcs11.CKA_EXTRACTABLE, false))
	}
	p.note(checkUnwrap, true, m.sensitive == 1 && m.extractable == 0, err)
	one := p.tag
	if one == nil {
		one, err = p.tagOf(victim)
	}
	two, other := p.tagOf(handle)
	err = cmp.Or(err, other)
	p.note(checkSame, true, bytes.Equal(one, two), err)
	return err
}

func (p *prober) unsealOnce(f form, kek uint, wrapped []byte, t template) (made, error) {
	m, err := f.unwrap(p.library, p.session, kek, wrapped, t)
	p.keep(m)
	return m, err
}

// unseal makes an unsealed key, and finds out what a module does not take of one.
func (p *prober) unseal(f form, kek uint, wrapped []byte) (m made, err error) {
	optional := slices.DeleteFunc(optionals(), func(o optional) bool { return o.attribute != ckaCopyable && o.attribute != pkcs11.CKA_MODIFIABLE })
	omitted, err := leavingOut(optional, func(omit []uint) (err error) {
		m, err = p.unsealOnce(f, kek, wrapped, slices.Clone(p.templates[keystore.HMACSHA256].unseal).without(omit))
		return err
	}, func() error { return nil })
	if err != nil || len(omitted) == 0 {
		return m, err
	}
	for _, o := range optional {
		if slices.Contains(omitted, o.attribute) {
			p.report = append(p.report, Check{Name: o.weakness, Required: true, Detail: "unsealed keys are without " + o.name})
		}
	}
	p.loose.Store(&omitted)
	return m, nil
}

func (p *prober) tagOf(key uint) ([]byte, error) {
	out := make([]byte, 32)
	n, err := p.sign(p.session, key, pkcs11.CKM_SHA256_HMAC, []byte("probe"), out)
	return out, wrote("C_Sign", out, n, err)
}

// hmac makes a key of HMAC-SHA256 that may leave, and compares what it computes
// with the standard library. A module that takes no keys from outside makes one.
func (p *prober) hmac() (uint, error) {
	raw := make([]byte, 32)
	rand.Read(raw)
	t := append(template{}, p.templates[keystore.HMACSHA256].imported...).add(pkcs11.CKA_VALUE, raw)
	m, err := p.create(p.session, t)
	if p.keep(m); err != nil {
		p.note(checkHMAC, false, false, err)
		return p.key(keystore.HMACSHA256, 32, pkcs11.CKA_SIGN)
	}
	got, err := p.tagOf(m.handle)
	h := hmac.New(sha256.New, raw)
	h.Write([]byte("probe"))
	same := hmac.Equal(got, h.Sum(nil))
	if p.takes.Store(err == nil && same); err == nil {
		p.tag = got
	}
	p.note(checkHMAC, true, same, err)
	return m.handle, nil
}
