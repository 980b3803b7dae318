package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Offered is the keys named in a begin message, each of the right kind.
type Offered struct {
	EKHash [sha256.Size]byte
	EK     Public
	AK     Public
	Keys   []Public
}

// Open parses the keys and checks their kinds. That proves nothing about where they are.
func (b *Begin) Open() (Offered, error) {
	var o Offered
	var err error
	if err = b.check(); err != nil {
		return o, err
	}
	if o.EK, err = ParsePublic(b.EK); err != nil {
		return o, err
	}
	if o.AK, err = ParsePublic(b.AK); err != nil {
		return o, err
	}
	for _, raw := range b.Keys {
		k, err := ParsePublic(raw)
		if err != nil {
			return o, err
		}
		o.Keys = append(o.Keys, k)
	}
	if o.EKHash, err = EKHash(o.EK.Key); err != nil {
		return o, err
	}
	return o, o.check()
}

func (o *Offered) check() error {
	if err := o.EK.checkEK(); err != nil {
		return err
	}
	if err := o.AK.checkAK(); err != nil {
		return err
	}
	for i, k := range o.Keys {
		if err := k.checkKey(); err != nil {
			return err
		}
		if i > 0 && k.Area.Type == o.Keys[0].Area.Type {
			return Fail(ErrKey, "two LDevIDs of one type")
		}
	}
	return nil
}

// Open checks everything in a proof that anyone can check at any time: the kinds of keys
// and all signatures. It cannot know whether the secret is right.
func (p *Proof) Open() (Offered, error) {
	o, err := p.Begin.Open()
	if err != nil {
		return o, err
	}
	if err := p.check(); err != nil {
		return o, err
	}
	certify := p.Digest(UseCertify)
	for i, k := range o.Keys {
		if err := CheckCertify(o.AK, k, p.Keys[i], certify); err != nil {
			return o, err
		}
		if err := checkRequest(k, p.Keys[i].Request); err != nil {
			return o, err
		}
	}
	if p.Quote != nil {
		if err := CheckQuote(o.AK, *p.Quote, p.Digest(UseQuote)); err != nil {
			return o, err
		}
	}
	if err := p.checkDevice(&o); err != nil {
		return o, err
	}
	return o, p.checkRenewal()
}

// checkRequest checks that a PKCS #10 request is for the key and signed by it. The
// subject is not used.
func checkRequest(k Public, der []byte) error {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Fail(ErrMalformed, "certificate request: %w", err)
	}
	if !keystore.SamePublic(r.PublicKey, k.Key) {
		return Fail(ErrKey, "the certificate request is not for the certified key")
	}
	if err := r.CheckSignature(); err != nil {
		return Fail(ErrSignature, "certificate request: %w", err)
	}
	return nil
}

// checkRenewal checks the signature of the key that vouches for the others. The record
// determines whether it may do so.
func (p *Proof) checkRenewal() error {
	if p.Renewal == nil {
		return nil
	}
	old, err := ParsePublic(p.Renewal.Key)
	if err != nil {
		return err
	}
	if err := old.checkKey(); err != nil {
		return err
	}
	digest := p.Digest(UseRenewal)
	ok := false
	switch key := old.Key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest, p.Renewal.Signature)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, p.Renewal.Signature) == nil
	}
	if !ok {
		return Fail(ErrSignature, "the old key did not sign the renewal")
	}
	return nil
}

// Names lists the TPM Names of the offered keys.
func (o *Offered) Names() [][]byte {
	var n [][]byte
	for _, k := range o.Keys {
		n = append(n, k.Name)
	}
	return n
}
