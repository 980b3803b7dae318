package isolated

import (
	"crypto"
	"crypto/rsa"
	"math/big"
)

// The forms of the options of a signature or a decryption.
const (
	noOptions = iota
	hashOptions
	pssOptions
	oaepOptions
	pkcs1Options
	otherOptions
)

// otherOption stands for options that no store knows.
type otherOption struct{}

func (m message) signerOptions(opts crypto.SignerOpts) message {
	switch o := opts.(type) {
	case nil:
		return m.number(noOptions)
	case *rsa.PSSOptions:
		return m.number(pssOptions).number(uint64(o.Hash)).number(uint64(int64(o.SaltLength)))
	}
	return m.number(hashOptions).number(uint64(opts.HashFunc()))
}

func (f *fields) signerOptions() crypto.SignerOpts {
	switch f.number() {
	case noOptions:
		return nil
	case pssOptions:
		return &rsa.PSSOptions{Hash: crypto.Hash(f.number()), SaltLength: int(int64(f.number()))}
	}
	return crypto.Hash(f.number())
}

func (m message) decrypterOptions(opts crypto.DecrypterOpts) message {
	switch o := opts.(type) {
	case nil:
		return m.number(noOptions)
	case *rsa.OAEPOptions:
		return m.number(oaepOptions).number(uint64(o.Hash)).number(uint64(o.MGFHash)).bytes(o.Label)
	//lint:ignore SA1019 some stores have it
	case *rsa.PKCS1v15DecryptOptions:
		return m.number(pkcs1Options).number(uint64(o.SessionKeyLen))
	}
	return m.number(otherOptions)
}

func (f *fields) decrypterOptions() crypto.DecrypterOpts {
	switch f.number() {
	case noOptions:
		return nil
	case oaepOptions:
		return &rsa.OAEPOptions{Hash: crypto.Hash(f.number()), MGFHash: crypto.Hash(f.number()), Label: f.bytes()}
	case pkcs1Options:
		//lint:ignore SA1019 some stores have it
		return &rsa.PKCS1v15DecryptOptions{SessionKeyLen: int(f.number())}
	}
	return otherOption{}
}

// rsaPublic writes a key as it is: the store judges it.
func (m message) rsaPublic(p *rsa.PublicKey) message {
	var modulus []byte
	if p.N != nil && p.N.Sign() > 0 {
		modulus = p.N.Bytes()
	}
	return m.bytes(modulus).number(uint64(int64(p.E)))
}

func (f *fields) rsaPublic() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(f.bytes()), E: int(int64(f.number()))}
}
