package keyx

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A JOSEMechanism is how ASYMMETRIC_WRAPPED puts session keys into JSON Web Keys.
type JOSEMechanism string

// The mechanisms of [AsymmetricJOSE].
const (
	JWERSA   JOSEMechanism = "JWE_RSA"   // in a JWE of five parts
	JWEJSRSA JOSEMechanism = "JWEJS_RSA" // in a JWE that is an object
	JWKRSA   JOSEMechanism = "JWK_RSA"   // RSA-OAEP on the JWK itself

	// JWKRSAES is PKCS #1 v1.5 encryption, for peers that support nothing better. Its
	// padding is an oracle for anyone who can observe how decryption fails
	// (Bleichenbacher, CRYPTO '98), so every fault in an answer is the same error, and
	// its key pair should be used for nothing else. It is used only if named explicitly.
	JWKRSAES JOSEMechanism = "JWK_RSAES"
)

// AsymmetricJOSE is the scheme ASYMMETRIC_WRAPPED with the mechanisms whose
// session keys travel as JSON Web Keys (MSL wiki, "Asymmetric Wrapped Key
// Exchange"). Both sides see the session keys, so custody must be imported or
// shared. Store must be a keystore.Importer.
type AsymmetricJOSE struct {
	Mechanism JOSEMechanism // empty means JWE_RSA
	Store     keystore.Store

	// KeyPair is a requester's provisioned key pair, and ID its name on the
	// wire. Nil makes a new pair for each exchange, which gives forward secrecy.
	KeyPair DecryptingPair
	ID      string
	// Fresh is the algorithm of new pairs; zero means keystore.RSADecrypt2048.
	Fresh keystore.Algorithm

	Rand io.Reader // nil means crypto/rand
}

// A DecryptingPair is an RSA key pair that decrypts into this process.
type DecryptingPair interface {
	keystore.Key
	crypto.Decrypter
}

var oaepSHA1 = &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1}

// Scheme returns ASYMMETRIC_WRAPPED.
func (*AsymmetricJOSE) Scheme() string { return "ASYMMETRIC_WRAPPED" }

// Exposes declares that the process sees the session keys: a JWK is text that contains
// the key.
func (*AsymmetricJOSE) Exposes() msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "session keys travel in the text of a JSON Web Key"}
}

func (x *AsymmetricJOSE) mechanism() JOSEMechanism {
	if x.Mechanism == "" {
		return JWERSA
	}
	return x.Mechanism
}

// Check refuses unknown mechanisms with error 7005, unconfigured ones with 7006, and an
// invalid public key with 3.
func (x *AsymmetricJOSE) Check(keydata []byte) error {
	_, err := x.parse(keydata)
	return err
}

func (x *AsymmetricJOSE) parse(keydata []byte) (asymmetricRequest, error) {
	if err := x.configured(); err != nil {
		return asymmetricRequest{}, err
	}
	return parseAsymmetric(keydata, string(x.mechanism()))
}

func (x *AsymmetricJOSE) configured() error {
	if !slices.Contains([]JOSEMechanism{JWERSA, JWEJSRSA, JWKRSA, JWKRSAES}, x.mechanism()) {
		return msl.Failure(msl.ErrUnsupportedKeyXMechanism, x.Scheme(), fmt.Errorf("configured as %q", x.Mechanism))
	}
	return nil
}

// Respond draws session keys and encrypts them for the requester's public key.
func (x *AsymmetricJOSE) Respond(_ context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	request, err := x.parse(keydata)
	if err != nil {
		return nil, nil, err
	}
	raw, err := msl.DrawRawKeys(x.Rand)
	if err != nil {
		return nil, nil, err
	}
	encryption, err := x.wrap(request.key, forEncryption, raw.Encryption())
	var signature []byte
	if err == nil {
		signature, err = x.wrap(request.key, forSignature, raw.Signature())
	}
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	keys, err := from.Custody.Import(x.Store, raw)
	if err != nil {
		return nil, nil, err
	}
	e := wire.NewEncoder(1024 + 2*(len(encryption)+len(signature)))
	e.Begin()
	e.String("keypairid", request.id)
	e.Bytes("encryptionkey", encryption)
	e.Bytes("hmackey", signature)
	e.End()
	return keys, e.Encoded(), nil
}

// wrap puts a key into a JWK and encrypts it.
func (x *AsymmetricJOSE) wrap(public *rsa.PublicKey, p purpose, key []byte) (wrapped []byte, err error) {
	form := p.withOps()
	if m := x.mechanism(); m == JWERSA || m == JWEJSRSA {
		form = p.withUse()
	}
	text := form.text(key)
	defer text.Close()
	oaep := func(b []byte) ([]byte, error) { return rsa.EncryptOAEP(sha1.New(), rand.Reader, public, b, nil) }
	suite := jweSuite{algOAEP, encGCM128}
	var j jwe
	switch x.mechanism() {
	case JWERSA:
		j, err = suite.seal(text.Bytes(), x.Rand, oaep)
		wrapped = j.compact()
	case JWEJSRSA:
		j, err = suite.seal(text.Bytes(), x.Rand, oaep)
		wrapped = j.json()
	case JWKRSA:
		wrapped, err = oaep(text.Bytes())
	case JWKRSAES:
		//lint:ignore SA1019 the mechanism is PKCS #1 v1.5
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, public, text.Bytes())
	}
	if err != nil {
		return nil, msl.Failure(msl.ErrWrapError, x.Scheme(), err)
	}
	return wrapped, nil
}

// Offer sends this side's public key.
func (x *AsymmetricJOSE) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	if err := x.configured(); err != nil {
		return nil, err
	}
	return x.decryption().offer(x.KeyPair, x.ID, x.Store, x.Fresh, from.Identity)
}

// Resume restores the session keys.
func (x *AsymmetricJOSE) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return x.decryption().resume(keep, x.KeyPair)
}

func (x *AsymmetricJOSE) decryption() decryption {
	var padding crypto.DecrypterOpts = oaepSHA1
	if x.mechanism() == JWKRSAES {
		//lint:ignore SA1019 the mechanism is PKCS #1 v1.5
		padding = &rsa.PKCS1v15DecryptOptions{}
	}
	return decryption{string(x.mechanism()), padding, x.Store, x.open}
}

// open finds the session keys in a response.
func (x *AsymmetricJOSE) open(f *wire.Fields, pair crypto.Decrypter) (*msl.RawKeys, error) {
	encryption, signature, err := wrappedKeys(f)
	if err != nil {
		return nil, err
	}
	raw := msl.NewRawKeys()
	err = x.unwrap(pair, encryption, forEncryption, raw.Encryption())
	if err == nil || x.mechanism() == JWKRSAES { // whatever the first one was
		err = errors.Join(err, x.unwrap(pair, signature, forSignature, raw.Signature()))
	}
	if err == nil {
		return raw, nil
	}
	raw.Close()
	if x.mechanism() == JWKRSAES {
		return nil, x.sameFailure(err)
	}
	return nil, err
}

// sameFailure hides what is wrong with an answer, unless the key store failed.
func (x *AsymmetricJOSE) sameFailure(err error) error {
	var e *msl.Error
	if errors.As(msl.Failure(msl.ErrUnwrapError, "", err), &e) && e.Code != msl.ErrUnwrapError || errors.Is(err, errors.ErrUnsupported) {
		return msl.Failure(msl.ErrUnwrapError, x.Scheme(), err)
	}
	return msl.Failure(msl.ErrUnwrapError, x.Scheme(), nil)
}

func (x *AsymmetricJOSE) unwrap(pair crypto.Decrypter, wrapped []byte, p purpose, room []byte) error {
	text, err := x.decrypt(pair, wrapped)
	if err != nil {
		return err
	}
	defer text.Close()
	k, err := parseJWK(text.Bytes())
	if errors.Is(err, errNoJWK) {
		return msl.Failure(msl.ErrSessionKeyCreationFailure, x.Scheme(), err)
	}
	if err != nil {
		return err
	}
	return k.key(p, room)
}

// decrypt returns the text of a JWK.
func (x *AsymmetricJOSE) decrypt(pair crypto.Decrypter, wrapped []byte) (*lockedmem.Buffer, error) {
	oaep := func(b []byte) ([]byte, error) {
		plain, err := pair.Decrypt(nil, b, oaepSHA1)
		if err != nil {
			return nil, x.decryptFailure(err)
		}
		return plain, nil
	}
	switch x.mechanism() {
	case JWKRSA:
		return moved(oaep(wrapped))
	case JWKRSAES:
		plain, err := pair.Decrypt(nil, wrapped, x.decryption().padding)
		if errors.Is(err, keystore.ErrBadData) {
			// As long to parse as a real JWK, but not one.
			plain, err = make([]byte, len(forEncryption.withOps().append(nil, make([]byte, 16)))), nil
		}
		if err != nil {
			return nil, x.decryptFailure(err)
		}
		return moved(plain, nil)
	}
	return jweSuite{algOAEP, encGCM128}.open(wrapped, oaep)
}

func (x *AsymmetricJOSE) decryptFailure(err error) error {
	return msl.KeyFailure(msl.ErrUnwrapError, x.Scheme(), err, keystore.ErrBadData, errors.ErrUnsupported)
}

// moved moves a secret into locked memory and overwrites the copy on the heap. Earlier
// copies made by a library are out of reach.
func moved(secret []byte, err error) (*lockedmem.Buffer, error) {
	if err != nil {
		return nil, err
	}
	return lockedmem.Move(secret), nil
}
