package hsm

import (
	"crypto/sha256"
	"errors"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// checkDigest is for information: no attribute of a key forbids C_DigestKey, and
// what a hash of keys gives away is seen to elsewhere (keystore.HMACSHA256Block).
const checkDigest = "digest-key"

// digest tries whether the module hashes a secret key that nobody may read. The
// check is ok where it refuses.
func (p *prober) digest(key uint) {
	out := make([]byte, sha256.Size)
	n, err := p.digestKey(p.session, pkcs11.CKM_SHA256, key, out)
	c := Check{Name: checkDigest, Detail: "the module hashes secret keys: anyone who has the PIN can compute hashes of them"}
	if err = exactly("C_DigestFinal", n, len(out), err); err != nil {
		c.OK, c.Untried, c.Detail = indigestible(err), !indigestible(err), err.Error()
	}
	p.report = append(p.report, c)
}

// indigestible reports whether the module said no to the key or to the function,
// and did not just fail.
func indigestible(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Function != "C_DigestKey" {
		return false
	}
	return quirkDigest.has(e.Code) || e.class() == classUnsupported
}

// peer wraps for a public key that nobody has the private half of.
func (p *prober) peer(free uint) {
	b := make([]byte, 256)
	n, err := p.wrapFor(p.session, peerTemplate(anyPeer(len(b))), free, b)
	p.note(checkPeer1, false, true, exactly("C_WrapKey", n, len(b), err))
}

// keeps finds out whether the module keeps every attribute of an UNWRAP_TEMPLATE.
// Even if it does not, it may do so for the existing keys, so each is tried.
func (p *prober) keeps(free uint) {
	k, err := p.kindOf(keystore.SealSession256)
	if err != nil {
		return
	}
	outcome := unclear
	m, err := forTrial(p.keyCalls, p.session, k.generate, k.fixed(k.secret(false, false).number(pkcs11.CKA_VALUE_LEN, 32)))
	if p.keep(m); err == nil {
		t := &trial{kek: m.handle}
		t.target, _ = kindOf(keystore.AES128CBC)
		if t.form, err = p.sealingForm(); err == nil {
			t.wrapped, err = t.form.wrap(p.library, p.session, m.handle, free, keystore.AES128CBC.Size())
		}
		if err == nil {
			outcome, err = t.tryAll(p.inspector, p.session, k.unwrapped, true)
		}
	}
	p.keepsTemplates.Store(err == nil && outcome == refused)
	p.note(checkTemplate, false, err == nil && outcome == refused, err)
}
