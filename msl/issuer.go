package msl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// IssuerKeys protect the tokens issued under one version of an issuer's keys. All
// services of one network share them, and no others.
type IssuerKeys struct {
	Version    uint32
	Encryption keystore.Cipher
	MAC        keystore.MAC
}

// An Issuer makes master tokens and user ID tokens and opens its own. Master tokens are
// sealed (see the package documentation): only Store can use the session keys in them.
// Tokens in the form of the reference stacks are written only for session keys made for
// [CustodyShared].
type Issuer struct {
	Name  string         // written into the tokens' envelopes, never compared
	Store keystore.Store // where session keys live
	Keys  []IssuerKeys   // newest first: the first one issues, all open

	// Versions replaces Keys if other programs may create newer versions meanwhile.
	Versions *Versions

	// Shared also opens master tokens in the form of the reference stacks, whose session
	// keys pass through the memory of this process. Store must then be a
	// keystore.Importer. Set it if a server's custody is [CustodyShared], since the
	// server's schemes open tokens as well. Set it without that custody to leave the
	// mode: such tokens are still read, and sealed ones are issued.
	Shared bool

	RenewAfter     time.Duration // of a master token; zero means one hour
	Lifetime       time.Duration // of a master token; zero means 24 hours
	UserRenewAfter time.Duration // of a user ID token; zero means one hour
	UserLifetime   time.Duration // of a user ID token; zero means 30 days

	// RenewExpired is how long after its expiration a master token can still be
	// renewed; after that its holder has to authenticate itself again. Zero means
	// the lifetime of a user ID token.
	RenewExpired time.Duration

	// UserRenewExpired is how long after its expiration a user ID token is still renewed;
	// after that its user has to log in again. Zero means as long as its master token can
	// be renewed, as in the reference stacks.
	UserRenewExpired time.Duration

	// Used, if not nil, is called with the key version under which a token was issued, or
	// opened and verified, by several goroutines. It must not block.
	Used func(version uint32)

	Time func() time.Time // nil means time.Now
	Rand io.Reader        // used by several goroutines; nil means crypto/rand
}

// maxRing bounds how many key versions are tried for a token.
const maxRing = 8

func (i *Issuer) now() time.Time {
	if i.Time == nil {
		return time.Now()
	}
	return i.Time()
}

func (k IssuerKeys) symmetric(name string, r io.Reader) SymmetricKey {
	return SymmetricKey{KeyID: fmt.Sprintf("%s#%d", name, k.Version), Encryption: k.Encryption, MAC: k.MAC, Rand: r}
}

// Issue makes a new master token for identity, or the renewal of old with the given
// sequence number. It seals keys, after which they cannot leave the store in any other
// way; for [CustodyShared] it writes their bytes into the token, then overwrites them. On
// success the session owns the keys.
func (i *Issuer) Issue(identity string, old *Session, sequence int64, keys *SessionKeys) (*Session, error) {
	return i.issueAt(i.now(), identity, old, sequence, keys)
}

func (i *Issuer) issueAt(at time.Time, identity string, old *Session, sequence int64, keys *SessionKeys) (*Session, error) {
	t := &MasterToken{
		RenewalWindow:  at.Add(cmp.Or(i.RenewAfter, time.Hour)).Truncate(time.Second),
		Expiration:     at.Add(i.lifetime()).Truncate(time.Second),
		SequenceNumber: sequence,
	}
	s := &Session{Token: t, Identity: identity, Keys: keys}
	if old != nil {
		t.SerialNumber, s.IssuerData = old.Token.SerialNumber, old.IssuerData
	} else {
		serial, err := randomNumber(i.Rand)
		if err != nil {
			return nil, err
		}
		t.SerialNumber = serial
	}
	return s, i.write(s)
}

// Issued returns when a master token was issued, to the second. It is computed from the
// times in the token; if the issuer's settings have changed since, it is the earlier of
// two possible times.
func (i *Issuer) Issued(t *MasterToken) time.Time {
	return earlier(t.Expiration.Add(-i.lifetime()), t.RenewalWindow.Add(-cmp.Or(i.RenewAfter, time.Hour)))
}

// IssuedUser returns when a user ID token was issued, as Issued does.
func (i *Issuer) IssuedUser(t *UserIDToken) time.Time {
	return earlier(t.Expiration.Add(-i.userLifetime()), t.RenewalWindow.Add(-cmp.Or(i.UserRenewAfter, time.Hour)))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (i *Issuer) lifetime() time.Duration { return cmp.Or(i.Lifetime, 24*time.Hour) }

func (i *Issuer) userLifetime() time.Duration { return cmp.Or(i.UserLifetime, 30*24*time.Hour) }

// AcceptedFor returns how long after its issue a master token may be renewed, including
// its lifetime. A sum of more than 292 years is cut off there.
func (i *Issuer) AcceptedFor() time.Duration {
	return i.lifetime() + min(i.renewExpired(), 1<<63-1-i.lifetime())
}

// renewExpired is for how long after its expiration a master token can be renewed.
func (i *Issuer) renewExpired() time.Duration { return cmp.Or(i.RenewExpired, i.userLifetime()) }

// isSlow reports whether the keys are in a device that is waited for.
func (i *Issuer) isSlow() bool {
	if i == nil {
		return false
	}
	ring := i.Ring()
	return len(ring) > 0 && isSlow(ring[0].MAC)
}

// write makes the encoded token of a session.
func (i *Issuer) write(s *Session) error {
	content, release, err := i.sessionData(s)
	if err != nil {
		return err
	}
	defer release()
	return i.issuing(func(key SymmetricKey, version uint32) (err error) {
		s.issuerVersion = version
		if s.Token.data, err = key.Encrypt(content); err == nil {
			s.Token.sealed, err = signToken(key, s.Token.encode())
		}
		return err
	})
}

// encode returns the part of a token that is signed.
func (t *MasterToken) encode() []byte {
	e := wire.NewEncoder(128 + len(t.data)*4/3)
	e.Begin()
	e.Int("renewalwindow", t.RenewalWindow.Unix())
	e.Int("expiration", t.Expiration.Unix())
	e.Int("sequencenumber", t.SequenceNumber)
	e.Int("serialnumber", t.SerialNumber)
	e.Bytes("sessiondata", t.data)
	e.End()
	return e.Encoded()
}

// issuing calls f with the key that issues, and its version: twice, if others destroyed the
// first.
func (i *Issuer) issuing(f func(key SymmetricKey, version uint32) error) error {
	use := func(k IssuerKeys) error {
		i.used(k)
		return f(k.symmetric(i.Name, i.Rand), k.Version)
	}
	switch {
	case i.Versions != nil:
		return i.Versions.use(use)
	case len(i.Keys) == 0:
		return fail(ErrInternalException, "issue a token", errors.New("issuer has no keys"))
	}
	return use(i.Keys[0])
}

// Ring returns the keys known now: the first one issues, all open.
func (i *Issuer) Ring() []IssuerKeys {
	if i.Versions != nil {
		return i.Versions.All()
	}
	return i.Keys
}

func (i *Issuer) used(k IssuerKeys) {
	if i.Used != nil {
		i.Used(k.Version)
	}
}

const (
	sealedForm   = 1
	aesName      = "AES"
	hmacName     = "HmacSHA256"
	cmacName     = "AESCmac"
	rsaName      = "SHA256withRSA"
	roleEncrypt  = "encryption"
	roleSign     = "signature"
	tokenContext = "msl master token"
)

// sessionData is the content of a master token; the caller must call release.
func (i *Issuer) sessionData(s *Session) (content []byte, release func(), err error) {
	if raw := s.Keys.raw.Swap(nil); raw != nil {
		content, release = sharedSessionData(s, raw)
		return content, release, nil
	}
	content, err = sealSession(i.Store, s)
	return content, func() {}, err
}

func sealSession(store keystore.Store, s *Session) ([]byte, error) {
	var encryption, signature []byte
	var errE, errS error
	both(isSlow(s.Keys.Signature),
		func() {
			encryption, errE = store.Seal(s.Keys.Encryption, sealContext(roleEncrypt, s.Token, s.Identity))
		},
		func() { signature, errS = store.Seal(s.Keys.Signature, sealContext(roleSign, s.Token, s.Identity)) })
	if err := cmp.Or(errE, errS); err != nil {
		return nil, fail(ErrInternalException, "seal session keys", err)
	}
	e := wire.NewEncoder(512)
	e.Begin()
	e.Int("sealed", sealedForm)
	e.String("identity", s.Identity)
	if s.IssuerData != nil {
		e.Raw("issuerdata", s.IssuerData)
	}
	e.String("encryptionalgorithm", aesName)
	e.String("signaturealgorithm", hmacName)
	e.Bytes("sealedencryptionkey", encryption)
	e.Bytes("sealedsignaturekey", signature)
	e.End()
	return e.Encoded(), nil
}

// sealContext binds a sealed session key to one use in one token of one entity.
func sealContext(role string, t *MasterToken, identity string) []byte {
	b := append([]byte(tokenContext), 0)
	b = append(append(b, role...), 0)
	b = binary.BigEndian.AppendUint64(b, uint64(t.SerialNumber))
	b = binary.BigEndian.AppendUint64(b, uint64(t.SequenceNumber))
	return append(b, identity...)
}

// Open verifies a master token and opens the session in it. A token that does
// not verify is [ErrMasterTokenUntrusted]. The caller releases the keys.
func (i *Issuer) Open(t *MasterToken) (*Session, error) { return i.open(t, i.Shared) }

func (i *Issuer) open(t *MasterToken, shared bool) (*Session, error) {
	key, version, err := i.verify(t.sealed, t.data)
	if err != nil {
		if err == errSignature {
			return nil, fail(ErrMasterTokenUntrusted, "open master token", nil)
		}
		return nil, err
	}
	content, err := decryptOwn(key, t.data)
	if err != nil {
		return nil, err
	}
	defer clear(content) // it may hold keys
	o, err := wire.Parse(content, wire.Limits{})
	if err != nil {
		return nil, fail(ErrMasterTokenSessionDataParseError, "open master token", err)
	}
	return i.openSession(t, o, version, shared)
}

// openSession makes a session from sessiondata decrypted with that key version.
func (i *Issuer) openSession(t *MasterToken, o wire.Object, version uint32, shared bool) (*Session, error) {
	f := wire.FieldsOf(o)
	s := &Session{
		Token: &MasterToken{RenewalWindow: t.RenewalWindow, Expiration: t.Expiration,
			SequenceNumber: t.SequenceNumber, SerialNumber: t.SerialNumber},
		Identity: f.String("identity"), issuerVersion: version,
	}
	if f.Has("issuerdata") {
		s.IssuerData = append([]byte(nil), f.Object("issuerdata").Raw()...)
	}
	if f.Err() != nil {
		return nil, fail(ErrMasterTokenSessionDataParseError, "open master token", f.Err())
	}
	var err error
	if o.Has("sealed") {
		s.Keys, err = i.unseal(t, s.Identity, o)
	} else {
		s.Keys, err = importShared(i, o, shared)
	}
	return s, err
}

func (i *Issuer) unseal(t *MasterToken, identity string, o wire.Object) (*SessionKeys, error) {
	f := wire.FieldsOf(o)
	form := f.Int("sealed")
	encryption, signature := f.Bytes("sealedencryptionkey"), f.Bytes("sealedsignaturekey")
	if f.Err() != nil || form != sealedForm {
		return nil, fail(ErrMasterTokenSessionDataParseError, "open master token", f.Err())
	}
	var e, s keystore.Key
	var errE, errS error
	both(i.isSlow(),
		func() {
			e, errE = i.Store.Unseal(keystore.AES128CBC, encryption, sealContext(roleEncrypt, t, identity))
		},
		func() { s, errS = i.Store.Unseal(keystore.HMACSHA256, signature, sealContext(roleSign, t, identity)) })
	keys, err := openedKeys(e, errE, s, errS)
	if err != nil {
		return nil, KeyFailure(ErrMasterTokenKeyCreationError, "unseal session keys", err, keystore.ErrForeign)
	}
	return keys, nil
}

func (i *Issuer) verifyKnown(t signedToken, data []byte) (SymmetricKey, uint32, error) {
	ring := i.Ring()
	ring = slices.Clone(ring[:min(len(ring), maxRing)])
	for n, k := range ring {
		if n > 0 && strings.HasSuffix(hint(data), fmt.Sprintf("#%d", k.Version)) {
			ring[0], ring[n] = k, ring[0]
			break
		}
	}
	for _, k := range ring {
		key := k.symmetric(i.Name, i.Rand)
		err := key.Verify(t.tokenData, t.signature)
		if err == nil {
			i.used(k)
		}
		if err != errSignature {
			return key, k.Version, err
		}
	}
	return SymmetricKey{}, 0, errSignature
}

// decryptOwn decrypts data that key has authenticated: a failure means that its
// encryption and MAC keys do not belong together.
func decryptOwn(key Opener, data []byte) ([]byte, error) {
	content, err := key.Decrypt(data)
	if errors.Is(err, keystore.ErrBadData) {
		err = fail(ErrInternalException, "decrypt a token of this issuer", err)
	}
	return content, err
}

func hint(data []byte) string {
	e, err := parseDecryptable(new(wire.Memory), data)
	if err != nil {
		return ""
	}
	return e.keyID
}

// randomNumber draws an identifier: a message id or a serial number, below 2^53.
func randomNumber(r io.Reader) (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(orRandom(r), b[:]); err != nil {
		return 0, fail(ErrInternalException, "draw a random number", err)
	}
	return int64(binary.BigEndian.Uint64(b[:]) % maxNumber), nil // a power of two: no bias
}
