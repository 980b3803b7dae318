package msl

import (
	"math"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A ServiceToken is application data that a peer keeps and sends back. It is
// bound to nothing, to a master token, or to a master token and a user ID token.
// Empty data means: delete this token.
type ServiceToken struct {
	Name        string
	MasterToken int64 // serial number, or Unbound
	UserIDToken int64 // serial number, or Unbound
	Data        []byte

	// Opened says that its keys are available, and Data is its content.
	Opened bool
	// Authentic says that its signature was verified, so that Data was written by someone
	// with the keys. It is false if the keys accept anything, as [Null] does: then the
	// sender of the token may have made it.
	Authentic bool

	encrypted   bool
	compression string // of Data, until it is decompressed
	sealed      signedToken
}

// Unbound stands for no serial number.
const Unbound = -1

// ServiceTokenKeys protect service tokens by name: with a [SymmetricKey], a [KeyRing], or
// [Null] for tokens that anyone may make and change. A [SigningKey] and its [VerifyKey],
// embedded in one struct, are for tokens that holders of the public key can verify. The
// entry of the empty name is for all other names. A token without available keys is
// passed on unread.
type ServiceTokenKeys map[string]interface {
	Protector
	Opener
}

func (k ServiceTokenKeys) of(name string) (interface {
	Protector
	Opener
}, bool) {
	key, ok := k[name]
	if !ok {
		key, ok = k[""]
	}
	return key, ok
}

// A KeyRing holds the versions of one key, newest first: the first protects, all open. It
// is for service tokens, whose holders may keep them after the version that protects them
// was replaced.
type KeyRing []SymmetricKey

// Encrypt encrypts with the newest version.
func (r KeyRing) Encrypt(plaintext []byte) ([]byte, error) {
	if len(r) == 0 {
		return nil, fail(ErrInternalException, "encrypt with an empty ring", nil)
	}
	return r[0].Encrypt(plaintext)
}

// Sign signs with the newest version.
func (r KeyRing) Sign(data []byte) ([]byte, error) {
	if len(r) == 0 {
		return nil, fail(ErrInternalException, "sign with an empty ring", nil)
	}
	return r[0].Sign(data)
}

// Verify accepts a signature by any version.
func (r KeyRing) Verify(data, signature []byte) error {
	_, err := r.verified(data, signature, nil, everyVersion())
	return err
}

// Decrypt opens an envelope with the version that it names by KeyID.
func (r KeyRing) Decrypt(data []byte) ([]byte, error) {
	for _, k := range r {
		if k.KeyID == hint(data) {
			return k.Decrypt(data)
		}
	}
	return nil, fail(ErrEnvelopeKeyIDMismatch, "decrypt with a ring", nil)
}

// A versionSearch is for the service tokens of one message: each signature costs an operation of
// the device for every version of the keys that is tried.
type versionSearch struct {
	recent string // made the last token, and is tried first for one that names no version
	others int    // may be tried, in addition to one version for each token
}

// strangersVersions bounds the search for a sender that proved nothing.
const strangersVersions = 64

func everyVersion() *versionSearch { return &versionSearch{others: math.MaxInt} }

// verified returns the version that made a signature. It opens the rest, regardless of the key
// id in content, the part of a token that may be encrypted.
func (r KeyRing) verified(data, signature, content []byte, search *versionSearch) (Opener, error) {
	for n, k := range r.likely(content, search.recent) {
		if n > 0 {
			if search.others == 0 {
				break
			}
			search.others--
		}
		err := k.Verify(data, signature)
		if err == nil {
			search.recent = k.KeyID
		}
		if err != errSignature {
			return k, err
		}
	}
	return r, errSignature
}

// likely returns the versions, with the one that content names first, or else the recent one.
func (r KeyRing) likely(content []byte, recent string) KeyRing {
	if len(r) < 2 {
		return r
	}
	at := func(name string) int {
		return slices.IndexFunc(r, func(k SymmetricKey) bool { return k.KeyID == name })
	}
	n := at(hint(content))
	if n < 0 {
		n = max(at(recent), 0)
	}
	r = slices.Clone(r)
	r[0], r[n] = r[n], r[0]
	return r
}

// verifiedToken returns the key that made the signature of a token: key itself, or one of its
// versions. It looks for a newer version of the key.
func verifiedToken(key Opener, data, signature, content []byte, search *versionSearch) (Opener, error) {
	switch key := key.(type) {
	case serviceRing:
		return key.verified(data, signature, content, search)
	case KeyRing:
		return key.verified(data, signature, content, search)
	}
	return key, key.Verify(data, signature)
}

// parseServiceToken makes every check of the protocol, the binding to mt and uit last.
// The data is still compressed, even in the token returned with a binding error.
func parseServiceToken(o wire.Object, keys ServiceTokenKeys, search *versionSearch, mt *MasterToken, uit *UserIDToken) (*ServiceToken, error) {
	const op = "service token"
	sealed, err := parseSignedToken(o, op, ErrServiceTokenTokenDataMissing)
	if err != nil {
		return nil, err
	}
	data, err := sealed.parseData()
	if err != nil {
		return nil, fail(ErrMSLParseError, op, err)
	}
	f := wire.FieldsOf(data)
	t := &ServiceToken{
		Name:        f.String("name"),
		MasterToken: f.OptionalInt("mtserialnumber", Unbound),
		UserIDToken: f.OptionalInt("uitserialnumber", Unbound),
		encrypted:   f.Bool("encrypted"),
		sealed:      sealed,
	}
	algorithm, content := f.OptionalString("compressionalgo"), f.Bytes("servicedata")
	if err := malformed(f, op); err != nil {
		return nil, err
	}
	if err := t.checkRanges(data); err != nil {
		return nil, err
	}
	if err := knownCompression(data, algorithm); err != nil {
		return nil, err
	}
	if err := t.open(keys, search, algorithm, content); err != nil {
		return nil, err
	}
	return t, t.boundTo(mt, uit)
}

func (t *ServiceToken) checkRanges(data wire.Object) error {
	if data.Has("mtserialnumber") && !inRange(t.MasterToken) {
		return fail(ErrServiceTokenMasterTokenSerialNumberOutOfRange, "service token", nil)
	}
	if data.Has("uitserialnumber") && !inRange(t.UserIDToken) {
		return fail(ErrServiceTokenUserIDTokenSerialNumberOutOfRange, "service token", nil)
	}
	return nil
}

// open verifies the token and decrypts its data, if its keys are available.
func (t *ServiceToken) open(keys ServiceTokenKeys, search *versionSearch, algorithm string, content []byte) error {
	if len(content) == 0 {
		t.Data = []byte{} // a deletion is honored even if it does not verify
		algorithm = ""    // there is nothing to decompress
	}
	configured, ok := keys.of(t.Name)
	if !ok {
		return nil
	}
	key, err := verifiedToken(configured, t.sealed.tokenData, t.sealed.signature, content, search)
	if err == errSignature {
		return nil
	}
	if err != nil {
		return err
	}
	if t.encrypted && len(content) > 0 {
		if content, err = decryptOwn(key, content); err != nil {
			return err
		}
	}
	t.Data, t.compression = content, algorithm
	t.Opened, t.Authentic = true, authenticates(key)
	return nil
}

// authenticates reports whether a signature verified by key proves anything: [Null] and
// its like accept even an empty one.
func authenticates(key Opener) bool {
	switch key.(type) {
	case SymmetricKey, VerifyKey:
		return true
	}
	return key.Verify(nil, nil) != nil
}

// inflate decompresses the data, unless already done.
func (t *ServiceToken) inflate(bounds wire.Inflation) error {
	data, err := decompress(t.compression, t.Data, bounds)
	if err != nil {
		t.Data, t.Opened, t.Authentic = nil, false, false
		return err
	}
	t.Data, t.compression = data, ""
	return nil
}

// boundTo refuses a token whose master token or user ID token is missing.
func (t *ServiceToken) boundTo(mt *MasterToken, uit *UserIDToken) error {
	if t.MasterToken != Unbound && (mt == nil || mt.SerialNumber != t.MasterToken) {
		return fail(ErrServiceTokenMasterTokenMismatch, "service token", nil)
	}
	if t.UserIDToken == Unbound {
		return nil
	}
	if uit == nil || uit.SerialNumber != t.UserIDToken {
		return fail(ErrServiceTokenUserIDTokenMismatch, "service token", nil)
	}
	if t.MasterToken != Unbound && uit.MasterToken != t.MasterToken {
		return fail(ErrServiceTokenMasterTokenMismatch, "service token", nil)
	}
	return nil
}

// sameAs reports whether t replaces u: same name, same binding.
func (t *ServiceToken) sameAs(u *ServiceToken) bool {
	return t.Name == u.Name && t.MasterToken == u.MasterToken && t.UserIDToken == u.UserIDToken
}

// setOf returns the first of each name and binding: the reference stacks read the tokens of a
// message into a set, which keeps them.
func setOf(list []*ServiceToken) (set []*ServiceToken) {
	for _, t := range list {
		if !slices.ContainsFunc(set, t.sameAs) {
			set = append(set, t)
		}
	}
	return set
}

// newServiceToken makes the token of a change, with the serial numbers that it is bound
// to, compressed if that is shorter. A deletion token needs no key.
func newServiceToken(c TokenChange, mt, uit int64, key Protector, compression string) (t *ServiceToken, err error) {
	if ring, ok := key.(serviceRing); ok && len(c.Data) > 0 {
		err = ring.use(func(k IssuerKeys) error {
			t, err = newServiceToken(c, mt, uit, k.symmetric(ring.name, ring.rand), compression)
			return err
		})
		return t, err
	}
	t = &ServiceToken{Name: c.Name, MasterToken: mt, UserIDToken: uit, Data: c.Data, Opened: true}
	if len(c.Data) == 0 {
		return t, t.sign(Null{}, "", c.Data)
	}
	content, compression, err := compress(compression, c.Data)
	if err != nil {
		return nil, err
	}
	if t.encrypted = !c.Unencrypted; t.encrypted {
		if content, err = key.Encrypt(content); err != nil {
			return nil, err
		}
	}
	if opener, ok := key.(Opener); ok {
		t.Authentic = authenticates(opener)
	}
	return t, t.sign(key, compression, content)
}

func (t *ServiceToken) sign(p Protector, compression string, content []byte) (err error) {
	e := wire.NewEncoder(128 + len(content)*4/3)
	e.Begin()
	e.String("name", t.Name)
	if t.MasterToken != Unbound {
		e.Int("mtserialnumber", t.MasterToken)
	}
	if t.UserIDToken != Unbound {
		e.Int("uitserialnumber", t.UserIDToken)
	}
	e.Bool("encrypted", t.encrypted)
	if compression != "" {
		e.String("compressionalgo", compression)
	}
	e.Bytes("servicedata", content)
	e.End()
	t.sealed, err = signToken(p, e.Encoded())
	return err
}
