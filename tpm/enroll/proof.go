package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
)

// offered is what a begin message names, each key of the right kind.
type offered struct {
	id   ID
	ek   public
	ak   public
	keys []public
}

// open parses and checks the keys. It proves nothing about where they are.
func (b *begin) open() (offered, error) {
	var o offered
	var err error
	if err = b.check(); err != nil {
		return o, err
	}
	if o.ek, err = parsePublic(b.EK); err != nil {
		return o, err
	}
	if o.ak, err = parsePublic(b.AK); err != nil {
		return o, err
	}
	for _, raw := range b.Keys {
		k, err := parsePublic(raw)
		if err != nil {
			return o, err
		}
		o.keys = append(o.keys, k)
	}
	if o.id, err = IDOf(o.ek.key); err != nil {
		return o, err
	}
	return o, o.check()
}

func (o *offered) check() error {
	if err := o.ek.checkEK(); err != nil {
		return err
	}
	if err := o.ak.checkAK(); err != nil {
		return err
	}
	for i, k := range o.keys {
		if err := k.checkKey(); err != nil {
			return err
		}
		if i > 0 && k.area.Type == o.keys[0].area.Type {
			return fail(ErrKey, "two LDevIDs of one type")
		}
	}
	return nil
}

// open checks everything in a proof that can be checked by anyone, at any time:
// the kinds of keys and all signatures. It does not know whether the secret is
// the one that was asked for.
func (p *proof) open() (offered, error) {
	o, err := p.Begin.open()
	if err != nil {
		return o, err
	}
	if err := p.check(); err != nil {
		return o, err
	}
	certify := p.digest(useCertify)
	for i, k := range o.keys {
		if err := checkCertify(o.ak, k, p.Keys[i], certify); err != nil {
			return o, err
		}
		if err := checkRequest(k, p.Keys[i].Request); err != nil {
			return o, err
		}
	}
	if p.Quote != nil {
		if err := checkQuote(o.ak, *p.Quote, p.digest(useQuote)); err != nil {
			return o, err
		}
	}
	return o, p.checkRenewal()
}

// checkRequest checks that a PKCS #10 request is of the key and signed by it.
// The subject is not used.
func checkRequest(k public, der []byte) error {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return fail(ErrMalformed, "certificate request: %w", err)
	}
	if !samePublic(r.PublicKey, k.key) {
		return fail(ErrKey, "the certificate request is of another key than the certified one")
	}
	if err := r.CheckSignature(); err != nil {
		return fail(ErrSignature, "certificate request: %w", err)
	}
	return nil
}

// checkRenewal checks the signature of the key that vouches for the others.
// Whether it may is for the record to say.
func (p *proof) checkRenewal() error {
	if p.Renewal == nil {
		return nil
	}
	old, err := parsePublic(p.Renewal.Key)
	if err != nil {
		return err
	}
	if err := old.checkKey(); err != nil {
		return err
	}
	digest := p.digest(useRenewal)
	ok := false
	switch key := old.key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest, p.Renewal.Signature)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, p.Renewal.Signature) == nil
	}
	if !ok {
		return fail(ErrSignature, "the old key did not sign the renewal")
	}
	return nil
}

// checkCertificateKey refuses an EK certificate that is for another EK. Device
// and certificate contradict each other, so no policy can accept that.
func (o *offered) checkCertificateKey(b *begin) error {
	if len(b.EKCertificates) == 0 {
		return nil
	}
	e, err := ParseEKCertificate(b.EKCertificates[0])
	if err != nil {
		return err
	}
	if !samePublic(e.PublicKey, o.ek.key) {
		return fail(ErrEKCertificate, "it is for another EK")
	}
	return nil
}

// checkSecret compares what the device found in the credential.
func (p *proof) checkSecret(want []byte) error {
	if subtle.ConstantTimeCompare(p.Secret, want) != 1 {
		return fail(ErrActivation, "the secret is wrong")
	}
	return nil
}

// names lists the Names of keys.
func names(keys []public) [][]byte {
	var n [][]byte
	for _, k := range keys {
		n = append(n, k.name)
	}
	return n
}

func sameLists(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sum256(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
