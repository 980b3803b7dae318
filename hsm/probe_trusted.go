package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// trusted tries what trusted wrapping relies on. kek is a throwaway key that is not
// trusted, and free one that may leave.
func (p *prober) trusted(kek, free uint) error {
	f := p.seals.Load()
	if !p.trust || f == nil {
		return nil
	}
	size := keystore.AES128CBC.Size()
	wrapped, err := f.wrap(p.library, p.session, kek, free, size)
	if err != nil {
		return err
	}
	p.bound(*f, kek, free, wrapped)
	outcome, err := p.officerOnly(*f, kek, wrapped)
	p.noteRefusal(checkOfficer, outcome, err)
	strangers, err := p.strangers()
	p.note(checkStrangers, true, len(strangers) == 0, err)
	p.report[len(p.report)-1].Detail += strings.Join(strangers, ", ")
	return nil
}

// bound tries to wrap a key, that only trusted keys may wrap, under others.
func (p *prober) bound(f form, kek, free uint, wrapped []byte) {
	var m made
	_, err := leavingOut(nil, func([]uint) (err error) {
		m, err = p.unsealOnce(f, kek, wrapped, p.taken(p.templates[keystore.AES128CBC].leaving))
		return err
	}, func() error { return nil })
	if err != nil {
		p.report = append(p.report, Check{Name: checkTrusted, Required: true, Detail: err.Error(), lacks: mayRefuse(err), Untried: !mayRefuse(err)})
		return
	}
	wrap := func(key uint) func() error {
		return func() error {
			_, err := f.wrap(p.library, p.session, kek, key, keystore.AES128CBC.Size())
			return err
		}
	}
	peer := func(key uint) func() error {
		return func() error {
			b := make([]byte, 256)
			n, err := p.wrapFor(p.session, peerTemplate(anyPeer(len(b))), key, b)
			return exactly("C_WrapKey", n, len(b), err)
		}
	}
	one, err1 := mustFail(wrap(m.handle), wrap(free), quirkWrap)
	two, err2 := mustFail(peer(m.handle), peer(free), quirkWrap)
	p.noteRefusal(checkTrusted, max(one, two), errors.Join(err1, err2))
}

// A making makes an object, which has more attributes.
type making func(more template) (uint, error)

// makings are all ways in which the user of a token makes a key that wraps.
func (p *prober) makings(f form, kek uint, wrapped []byte) []making {
	session := p.session
	templates := p.templates[keystore.AESWrap128]
	raw := make([]byte, keystore.AESWrap128.Size())
	rand.Read(raw)
	of := func(m made, err error) (uint, error) { return m.handle, err }
	with := func(t, more template) template { return append(slices.Clone(t), more...) }
	return []making{
		func(more template) (uint, error) {
			return of(p.generate(session, pkcs11.CKM_AES_KEY_GEN, with(templates.generate, more)))
		},
		func(more template) (uint, error) {
			return of(p.create(session, with(with(templates.imported, template{}.add(pkcs11.CKA_VALUE, raw)), more)))
		},
		func(more template) (uint, error) {
			return of(p.create(session, with(peerTemplate(anyPeer(256)), more)))
		},
		func(more template) (uint, error) {
			return of(f.unwrap(p.library, session, kek, wrapped, with(templates.unwrap, more)))
		},
		func(more template) (uint, error) {
			return p.copy(session, kek, with(template{}.flag(pkcs11.CKA_TOKEN, false), more))
		},
		func(more template) (uint, error) {
			key, err := of(p.generate(session, pkcs11.CKM_AES_KEY_GEN, templates.generate))
			if err == nil && len(more) > 0 {
				_, err = p.set(session, key, more)
			}
			return key, err
		},
	}
}

// officerOnly tries to make a trusted key as the user of the token.
func (p *prober) officerOnly(f form, kek uint, wrapped []byte) (worst outcome, err error) {
	trust := template{}.flag(pkcs11.CKA_TRUSTED, true)
	for _, make := range p.makings(f, kek, wrapped) {
		like := func() error { return p.makes(make, nil) }
		if err := like(); classOf(err) == classOther && err != nil || classOf(err) == classUnsupported {
			continue // the module makes no key in this way, trusted or not
		}
		outcome, err := mustFail(func() error { return p.makes(make, trust) }, like, quirkTemplate)
		if err != nil || outcome == opened {
			return outcome, err
		}
		worst = max(worst, outcome)
	}
	return worst, nil
}

// makes makes an object, and fails if it is to be trusted and is not.
func (p *prober) makes(make making, more template) error {
	key, err := make(more)
	p.keep(made{ref: ref{handle: key}})
	switch {
	case answered(err, pkcs11.CKR_USER_NOT_LOGGED_IN): // as the security officer
		return &Error{Function: "C_Login", Code: pkcs11.CKR_FUNCTION_FAILED}
	case err != nil || len(more) == 0:
		return err
	}
	b, err := p.attribute(p.session, key, pkcs11.CKA_TRUSTED)
	if err == nil && !bytes.Equal(b, []byte{1}) {
		err = errStillClosed
	}
	return err
}

// strangers are the trusted wrapping keys in the token that are not sealing keys. One
// without a name is looked at again for a moment: another process may be making it.
func (p *prober) strangers() (names []string, err error) {
	for try := range 6 {
		names, err = strangersNow(p)
		if err != nil || !slices.Contains(names, nameless) {
			return names, err
		}
		time.Sleep(time.Duration(10+20*try) * time.Millisecond)
	}
	return names, nil
}

const nameless = "one without a label"

func strangersNow(p *prober) (names []string, err error) {
	handles, err := p.find(p.session, template{}.flag(pkcs11.CKA_TRUSTED, true))
	if quirkUnknownAttribute.is(err) {
		return nil, nil // so no key is trusted
	}
	if err != nil {
		return nil, err
	}
	own := []string{keystore.RoleSealSession.Label(p.prefix), keystore.RoleSealWrapping.Label(p.prefix)}
	for _, h := range handles {
		all, err := p.attributes(p.session, h, pkcs11.CKA_CLASS, pkcs11.CKA_LABEL, pkcs11.CKA_WRAP)
		if err != nil {
			return nil, err
		}
		label := string(all[pkcs11.CKA_LABEL])
		class, _ := number(all[pkcs11.CKA_CLASS])
		switch {
		case class == pkcs11.CKO_CERTIFICATE, bytes.Equal(all[pkcs11.CKA_WRAP], []byte{0}), slices.Contains(own, label):
		case label == "":
			names = append(names, nameless)
		default:
			names = append(names, fmt.Sprintf("%q", label))
		}
	}
	return names, nil
}
