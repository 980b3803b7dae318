package hsm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A form is one way to wrap a key under another. A sealed key names it, so that the key is
// opened as it was sealed, whatever the module would choose today.
type form struct {
	id        byte // keystore.Sealed.Form: never given to anything else
	mechanism uint
	iv        int    // bytes of initialization vector, which stand before the wrapped key
	grows     int    // how many bytes longer than the key all of it is
	more      int    // or so many more, at some vendors
	weakness  string // what it leaves to whoever has the PIN, as Config.AllowWeak names it
}

// The names of forms that do not keep sealed keys from whoever has the PIN.
const (
	weakCBC = "seal-cbc-pad"
	weakGCM = "seal-gcm-iv"
	weakAny = "seal-any-mechanism"
)

// Mechanisms that miekg/pkcs11 does not name. Vendors' mechanisms are tried if a module
// lists them, and used if they behave as documented.
const (
	ckmKeyWrap        = 0x2109     // CKM_AES_KEY_WRAP, RFC 3394
	ckmKeyWrapKWP     = 0x210B     // CKM_AES_KEY_WRAP_KWP, RFC 5649
	ckmKeyWrapPKCS7   = 0x210C     // CKM_AES_KEY_WRAP_PKCS7, RFC 3394 with padding as of CBC
	ckmKeyWrapLuna    = 0x80000170 // CKM_AES_KW of Luna, RFC 3394
	ckmKeyWrapKWPLuna = 0x80000171 // CKM_AES_KWP of Luna, RFC 5649
	ckmKeyWrapCloud   = 0x80002109 // CKM_CLOUDHSM_AES_KEY_WRAP_NO_PAD, RFC 3394
)

// forms are the forms that seal, ordered by what they leave to an attacker who has the PIN:
// the best first.
//
//   - AES key wrap, with or without padding (RFC 3394, RFC 5649): a key comes back whole or
//     not at all.
//   - AES-GCM, if the module draws the initialization vector. If the caller chooses it, an
//     attacker wraps their own key under that of a recorded one, and the difference of
//     the two ciphertexts is that of the keys.
//   - AES-CBC with padding. An attacker cuts and alters the data before unwrapping it, and
//     whether the padding is right tells one byte of the key after another.
func forms() []form {
	return []form{
		{mechanism: ckmKeyWrap, grows: 8},
		{mechanism: ckmKeyWrapCloud, grows: 8},
		{mechanism: ckmKeyWrapLuna, grows: 8},
		{id: 1, mechanism: ckmKeyWrapKWP, grows: 8},
		{id: 1, mechanism: ckmKeyWrapKWPLuna, grows: 8},
		{id: 2, mechanism: pkcs11.CKM_AES_KEY_WRAP_PAD, grows: 8, more: 8}, // RFC 5649, or RFC 3394 with padding as of CBC
		{id: 2, mechanism: ckmKeyWrapPKCS7, grows: 16},
		{id: 3, mechanism: pkcs11.CKM_AES_GCM, iv: 12, grows: 28, weakness: weakGCM},
		{id: 4, mechanism: pkcs11.CKM_AES_CBC_PAD, iv: 16, grows: 32, weakness: weakCBC},
	}
}

// noForm is the error of a module in which nothing can be sealed.
func noForm() error { return &Error{Function: "C_WrapKey", Code: pkcs11.CKR_MECHANISM_INVALID} }

// sealingForm is the form that new sealing keys are for.
func (e *entry) sealingForm() (form, error) {
	if f := e.seals.Load(); f != nil {
		return *f, nil
	}
	return form{}, fmt.Errorf("%w: to seal keys the vendor would have to add CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP, or CKM_AES_GCM with an initialization vector that the module draws", noForm())
}

// keyWrap is AES key wrap (RFC 3394), which peers know too, as the module has it. A key
// that can use it seals with it.
func (e *entry) keyWrap() (form, error) {
	switch f := e.seals.Load(); {
	case f == nil:
		return forms()[0], nil
	case f.id != 0:
		return forms()[0], fmt.Errorf("hsm: the module has no CKM_AES_KEY_WRAP, with which keys are wrapped for and by peers: %w", errors.ErrUnsupported)
	default:
		return *f, nil
	}
}

// formOf is the form of a sealing key: of the mechanisms that it is for, or without such
// a bound that of the module.
func (e *entry) formOf(mechanisms []byte) (form, error) {
	ours, err := e.sealingForm()
	if len(mechanisms) == 0 || err == nil && allows(mechanisms, ours.mechanism) {
		return ours, err
	}
	for _, f := range forms() {
		if allows(mechanisms, f.mechanism) {
			return f, nil
		}
	}
	return form{}, fmt.Errorf("%w: the key is only for %s, which seals nothing; make a new version", noForm(), strings.Join(mechanismNames(mechanisms), ", "))
}

// allows reports whether a CKA_ALLOWED_MECHANISMS names a mechanism.
func allows(mechanisms []byte, m uint) bool {
	for ; len(mechanisms) >= word; mechanisms = mechanisms[word:] {
		if one, _ := number(mechanisms[:word]); one == m {
			return true
		}
	}
	return false
}

// formNamed is the form of a key that was sealed before: as the module seals now, or as it
// did when it had another choice.
func (e *entry) formNamed(id byte, size, wrapped int) (form, bool) {
	all := forms()
	if now := e.seals.Load(); now != nil {
		all = append([]form{*now}, all...)
	}
	for _, f := range all {
		if f.id == id && f.fits(size, wrapped) {
			return f, true
		}
	}
	return form{}, false
}

// weakForm is the weakness of the form in which a sealing key seals, or "".
func (i *inspector) weakForm(session uint, e *evidence) (string, error) {
	f, err := i.formOf(e.told[ckaAllowed])
	if err != nil || f.weakness == weakCBC || f.weakness == "" && !i.pads.Load() {
		return f.weakness, err
	}
	key, err := i.throwaway(session, sealable(e.Algorithm))
	if err != nil {
		return "", err
	}
	if f.weakness == weakGCM {
		f, err = i.judgeIV(f, session, e.handle, key, keystore.AES128CBC.Size())
	}
	if err == nil && f.weakness == "" {
		f.weakness, err = i.anyMechanism(f, session, e, key)
	}
	return f.weakness, errors.Join(err, i.destroy(session, key))
}

// anyMechanism tries whether a sealing key wraps with CKM_AES_CBC_PAD besides: that is for
// whoever has the PIN to choose, if no CKA_ALLOWED_MECHANISMS binds the key to its form.
func (i *inspector) anyMechanism(f form, session uint, e *evidence, key uint) (weakness string, err error) {
	list := e.told[ckaAllowed]
	if !i.pads.Load() || len(list) > 0 && !allows(list, pkcs11.CKM_AES_CBC_PAD) && i.binds.Load() {
		return "", nil
	}
	if pads, err := i.padsKey(f, session, e.handle, key); err != nil || !pads {
		return "", err
	}
	return weakAny, nil
}

// padsKey tries whether a key that wraps in a form wraps another with CKM_AES_CBC_PAD besides.
func (l library) padsKey(f form, session, kek, key uint) (bool, error) {
	as := func(f form) func() error {
		return func() error { _, err := f.wrap(l, session, kek, key, keystore.AES128CBC.Size()); return err }
	}
	pads := as(forms()[len(forms())-1])
	err := pads()
	if c := classOf(err); err == nil || c == classUnsupported || c == classLocked {
		return err == nil, nil
	}
	outcome, err := mustFail(pads, as(f), noQuirk)
	return outcome == opened, err
}

// bends finds out whether the module wraps with CKM_AES_CBC_PAD, whatever it says of that, and
// if so, whether it keeps keys to the mechanisms that they are for.
func bends(p *prober, f form, kek, key uint) error {
	pads, err := p.padsKey(f, p.session, kek, key)
	if p.pads.Store(pads); err != nil || !pads {
		return err
	}
	k, err := kindOf(keystore.AES128CBC)
	if err != nil {
		return err
	}
	m, err := forTrial(p.keyCalls, p.session, k.generate, k.secret(false, false).number(pkcs11.CKA_VALUE_LEN, 16).allowed(k.mechanisms))
	if p.keep(m); err != nil {
		return nil // it does not know the attribute: each key is tried
	}
	encrypt := func(mechanism uint, iv int) func() error {
		return func() error {
			_, err := p.encrypt(p.session, m.handle, mechanism, make([]byte, iv), make([]byte, 16), make([]byte, 16))
			return err
		}
	}
	outcome, err := mustFail(encrypt(pkcs11.CKM_AES_ECB, 0), encrypt(pkcs11.CKM_AES_CBC, 16), noQuirk)
	p.binds.Store(err == nil && outcome == refused)
	return err
}

// fits reports whether a key of size bytes has that length when it is wrapped.
func (f form) fits(size, wrapped int) bool {
	return wrapped == size+f.grows || wrapped == size+f.grows+f.more
}

// wrap wraps a key of size bytes.
func (f form) wrap(l library, session, kek, key uint, size int) ([]byte, error) {
	out := make([]byte, size+f.grows+f.more+16) // room for what is too long to be it
	rand.Read(out[:f.iv])
	n, err := l.wrap(session, f.mechanism, kek, key, out[:f.iv], out[f.iv:])
	if n += f.iv; err == nil && f.fits(size, n) {
		return out[:n], wrote("C_WrapKey", out[f.iv:n], n-f.iv, nil)
	}
	return nil, exactly("C_WrapKey", n, size+f.grows, err)
}

// unwrap makes an object of what wrap returned.
func (f form) unwrap(l library, session, kek uint, wrapped []byte, t template) (made, error) {
	if len(wrapped) < f.iv {
		return made{}, fmt.Errorf("hsm: a wrapped key of %d bytes: %w", len(wrapped), keystore.ErrBadData)
	}
	return l.unwrap(session, f.mechanism, kek, wrapped[:f.iv], wrapped[f.iv:], t)
}

// kindOf is how an algorithm looks in this module: its wrapping keys are for the mechanism
// that the module has.
func (e *entry) kindOf(a keystore.Algorithm) (kind, error) {
	k, err := kindOf(a)
	if a == keystore.AESReveal128 && e.bare.Load() {
		return revealsBlocks(), nil
	}
	if e.trust && a.SealsKeys() {
		k = k.trusting()
	}
	k = e.loosened(k)
	if err != nil || !slices.Equal(k.mechanisms, []uint{ckmKeyWrap}) {
		return k, err
	}
	f, err := e.keyWrap()
	if a.Sealing() {
		f, err = e.sealingForm()
	}
	k.mechanisms = []uint{f.mechanism}
	return k, err
}

// choose finds the form that seals, and wraps with it: the first that is closed, or else
// the first whose weakness is allowed, or else the first that exists.
func (p *prober) choose(kek, victim uint, size int) (best form, wrapped []byte, err error) {
	for _, f := range forms() {
		g, b, err := p.try(f, kek, victim, size)
		switch {
		case err != nil && !lacks(f, err):
			return form{}, nil, err
		case err != nil:
		case g.weakness == "":
			return g, b, nil
		case wrapped == nil, !p.allow.has(best.weakness) && p.allow.has(g.weakness):
			best, wrapped = g, b
		}
	}
	if wrapped == nil {
		_, err = (&entry{}).sealingForm()
	}
	return best, wrapped, err
}

// lacks reports whether a failure says that a module does not have a form. Of all but the
// first the module has said that it has them, so that what fails there is a form that works
// in another way, unless the device fails.
func lacks(f form, err error) bool {
	var e *Error
	switch is := errors.As(err, &e); {
	case !is:
		return false
	case e.class() == classUnsupported, e.garbage != "":
		return true
	}
	return e.class() == classOther && f.mechanism != ckmKeyWrap
}

// try wraps a key in a form, twice where the first time may have failed by chance. AES-GCM
// is closed if the module draws the initialization vector by itself.
func (p *prober) try(f form, kek, key uint, size int) (form, []byte, error) {
	if f.mechanism != ckmKeyWrap {
		if has, err := p.wraps(p.slot, f.mechanism); err != nil {
			return f, nil, err
		} else if !has {
			return f, nil, noForm()
		}
	}
	b, err := f.wrap(p.library, p.session, kek, key, size)
	if err != nil {
		b, err = f.wrap(p.library, p.session, kek, key, size)
	}
	if err != nil {
		return f, nil, err
	}
	if f.grows, f.more = len(b)-size, 0; f.mechanism != pkcs11.CKM_AES_GCM {
		return f, b, nil
	}
	f, err = p.judgeIV(f, p.session, kek, key, size)
	return f, b, err
}

// judgeIV finds out whether the module ignores an initialization vector: one is given
// twice, and two others come back. Then AES-GCM is not weak.
func (l library) judgeIV(f form, session, kek, key uint, size int) (form, error) {
	var given, one, two [12]byte
	out := make([]byte, size+f.grows-f.iv)
	rand.Read(given[:])
	one, two = given, given
	n, err := l.wrap(session, f.mechanism, kek, key, one[:], out)
	if err = exactly("C_WrapKey", n, len(out), err); err != nil {
		return f, err
	}
	n, err = l.wrap(session, f.mechanism, kek, key, two[:], out)
	if err == nil && one != given && two != given && one != two {
		f.weakness = ""
	}
	return f, exactly("C_WrapKey", n, len(out), err)
}
