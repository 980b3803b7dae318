package tpm

import (
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

const (
	tss2Type = "TSS2 PRIVATE KEY"
	maxTSS2  = 64 << 10
)

// The TCG's OIDs for a key that TPM2_Load accepts, and for one that TPM2_Import accepts.
var (
	oidLoadableKey   = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}
	oidImportableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 4}
)

// A tss2Key is the ASN.1 of a TSS2 private key ("ASN.1 Specification for TPM 2.0 Key
// Files"). The description is never written, because older readers fail on it.
type tss2Key struct {
	kind                  asn1.ObjectIdentifier
	emptyAuth, authUnsaid bool
	hasPolicy             bool
	rsaParent             bool
	unknown               string // a field that later specifications may have
	parent                int64
	secret                []byte // TPM2B_ENCRYPTED_SECRET, or nil
	public, private       []byte // TPM2B_PUBLIC, TPM2B_PRIVATE
}

// readTSS2 also reads what other programs write: TRUE is any nonzero BOOLEAN, as in BER,
// and on systems with 32-bit longs, persistent handles are negative.
func readTSS2(der cryptobyte.String) (k tss2Key, ok bool) {
	var in, auth, policy, secret, authPolicy, rsaParent, other, public, private cryptobyte.String
	var hasAuth, hasSecret, hasParent, present bool
	tag := func(n uint8) tags.Tag { return tags.Tag(n).ContextSpecific().Constructed() }
	ok = der.ReadASN1(&in, tags.SEQUENCE) && der.Empty() && in.ReadASN1ObjectIdentifier(&k.kind) &&
		in.ReadOptionalASN1(&auth, &hasAuth, tag(0)) &&
		in.ReadOptionalASN1(&policy, &present, tag(1)) &&
		in.ReadOptionalASN1(&secret, &hasSecret, tag(2)) &&
		in.ReadOptionalASN1(&authPolicy, &present, tag(3)) &&
		in.ReadOptionalASN1(&other, &present, tag(4)) && in.ReadOptionalASN1(&rsaParent, &hasParent, tag(5)) &&
		k.skipUnknown(&in) && in.ReadASN1Integer(&k.parent) && in.ReadASN1(&public, tags.OCTET_STRING) && in.ReadASN1(&private, tags.OCTET_STRING) &&
		in.Empty()
	if !ok || hasAuth && !readBool(auth, &k.emptyAuth) || hasParent && !readBool(rsaParent, &k.rsaParent) {
		return k, false
	}
	if hasSecret && !(secret.ReadASN1((*cryptobyte.String)(&k.secret), tags.OCTET_STRING) && secret.Empty()) {
		return k, false
	}
	if k.parent < 0 && k.parent >= math.MinInt32 {
		k.parent += 1 << 32
	}
	k.authUnsaid = !hasAuth
	k.public, k.private = public, private
	k.hasPolicy = len(policy) > 2 || len(authPolicy) > 2 // otherwise its content is empty
	return k, true
}

// skipUnknown skips optional fields before the parent that are none of the above.
func (k *tss2Key) skipUnknown(in *cryptobyte.String) bool {
	const context, number = 0xa0, 0x1f
	for len(*in) > 0 && (*in)[0]&^number == context {
		var field cryptobyte.String
		var tag tags.Tag
		if !in.ReadAnyASN1(&field, &tag) {
			return false
		}
		k.unknown = fmt.Sprintf("[%d]", tag&number)
	}
	return true
}

func readBool(in cryptobyte.String, b *bool) bool {
	var value cryptobyte.String
	ok := in.ReadASN1(&value, tags.BOOLEAN) && in.Empty() && len(value) == 1
	*b = ok && value[0] != 0
	return ok
}

// unsupported says why a well-formed key is not for TPM2_Load or TPM2_Import without a
// policy, or returns "".
func (k *tss2Key) unsupported() string {
	importable := k.kind.Equal(oidImportableKey)
	switch kind := k.kind.String(); {
	case kind == "2.23.133.10.1.5":
		return "it is sealed data, not a key"
	case !importable && !k.kind.Equal(oidLoadableKey):
		return "its type " + kind + " is unknown"
	case k.unknown != "":
		return "it has the field " + k.unknown + ", which is unknown or not in its place"
	case k.hasPolicy:
		return "it has a policy, which this store cannot satisfy"
	case importable && len(k.secret) == 0:
		return "it is for TPM2_Import, but has no encrypted seed"
	case !importable && len(k.secret) > 0:
		return "it has an encrypted seed, which only a key for TPM2_Import has"
	}
	return ""
}

func isRSA(public []byte) bool {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	return err == nil && p.Type == tpm2.TPMAlgRSA
}

// A TSS2 is a key file for other programs that use TPMs.
type TSS2 struct {
	EmptyAuth bool           // the file says that the key has no PIN
	Unsaid    bool           // the file does not say whether it has one
	Parent    tpm2.TPMHandle // persistent handle, or TPM_RH_OWNER
	RSAParent bool           // the key below TPM_RH_OWNER is RSA, not P-256
	Public    []byte         // TPMT_PUBLIC
	Private   []byte         // contents of the TPM2B_PRIVATE
	Seed      []byte         // encrypted seed of a key that TPM2_Import accepts; nil for TPM2_Load
}

// ParseTSS2 reads a PEM file of type TSS2 PRIVATE KEY. A damaged file is
// [keystore.ErrBadData]; a key with a policy, or one that is neither for TPM2_Load nor for
// TPM2_Import, is errors.ErrUnsupported.
func ParseTSS2(text []byte) (*TSS2, error) {
	if len(text) > maxTSS2 {
		return nil, fmt.Errorf("tpm: the TSS2 key has %d bytes, more than the %d allowed: %w", len(text), maxTSS2, keystore.ErrBadData)
	}
	der, err := onlyTSS2(text)
	if err != nil {
		return nil, err
	}
	k, ok := readTSS2(der)
	if !ok {
		return nil, fmt.Errorf("tpm: TSS2 key: its ASN.1 is damaged: %w", keystore.ErrBadData)
	}
	if why := k.unsupported(); why != "" {
		return nil, fmt.Errorf("tpm: TSS2 key: %s: %w", why, errors.ErrUnsupported)
	}
	public, rest1, ok := cut16(k.public)
	private, rest2, ok2 := cut16(k.private)
	var seed, rest3 []byte
	ok3 := true
	if len(k.secret) > 0 {
		seed, rest3, ok3 = cut16(k.secret)
	}
	if !ok || !ok2 || !ok3 || len(rest1)+len(rest2)+len(rest3) > 0 || k.parent < 0 || k.parent > 1<<32-1 {
		return nil, fmt.Errorf("tpm: TSS2 key: its blobs are damaged: %w", keystore.ErrBadData)
	}
	if p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public); seed != nil && err == nil && (p.ObjectAttributes.FixedTPM || p.ObjectAttributes.FixedParent) {
		return nil, fmt.Errorf("tpm: TSS2 key: it is for TPM2_Import, but bound to the TPM in which it was made: %w", keystore.ErrBadData)
	}
	return &TSS2{
		EmptyAuth: k.emptyAuth, Unsaid: k.authUnsaid, Parent: tpm2.TPMHandle(k.parent), RSAParent: k.rsaParent,
		Public: public, Private: private, Seed: seed,
	}, nil
}

// onlyTSS2 returns the key in a file, which may also contain text and other blocks, such
// as its certificate.
func onlyTSS2(text []byte) (der []byte, err error) {
	blocks, err := strictpem.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("tpm: TSS2 key: %w: %w", err, keystore.ErrBadData)
	}
	for _, b := range blocks {
		switch {
		case b.Type != tss2Type:
		case der != nil:
			return nil, fmt.Errorf("tpm: line %d: a second TSS2 key, but a file may contain only one: %w", b.Line, keystore.ErrBadData)
		default:
			der = b.Bytes
		}
	}
	if der == nil {
		return nil, fmt.Errorf("tpm: no PEM block %q: %w", tss2Type, keystore.ErrBadData)
	}
	return der, nil
}

// PEM writes the file that ParseTSS2 reads.
func (f *TSS2) PEM() ([]byte, error) {
	type file struct {
		Type      asn1.ObjectIdentifier
		EmptyAuth bool   `asn1:"explicit,tag:0"`
		Secret    []byte `asn1:"explicit,tag:2,optional"`
		RSAParent bool   `asn1:"explicit,tag:5,optional"`
		Parent    int64
		Public    []byte
		Private   []byte
	}
	kind, secret := oidLoadableKey, []byte(nil)
	if f.Seed != nil {
		kind, secret = oidImportableKey, append16(nil, f.Seed)
	}
	der, err := asn1.Marshal(file{kind, f.EmptyAuth, secret, f.RSAParent, int64(f.Parent), append16(nil, f.Public), append16(nil, f.Private)})
	if err != nil {
		return nil, fmt.Errorf("tpm: TSS2 key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: tss2Type, Bytes: der}), nil
}

// ExportTSS2 returns one version of a provisioned key as a TSS2 key file, for other
// programs that use this TPM. No other TPM loads it.
func (s *Store) ExportTSS2(label string, version uint32) ([]byte, error) {
	r, err := s.provisioned.find(label, version)
	if err != nil {
		return nil, err
	}
	f := TSS2{EmptyAuth: r.object.auth.Len() == 0, Parent: tpm2.TPMHandle(s.storage.key.places[0]), Public: r.Public, Private: r.Private}
	if r.Adopted != nil && r.Adopted.Parent != nil {
		if f.Parent = tpm2.TPMHandle(r.Adopted.Parent.Handle); f.Parent == 0 {
			f.Parent, f.RSAParent = tpm2.TPMRHOwner, isRSA(r.Adopted.Parent.Public)
		}
	}
	return f.PEM()
}

// ImportTSS2 makes the next version of the provisioned key with a label from a TSS2 key
// file of this or another program. Its parent is a persistent storage key, or the owner
// hierarchy; for a key that another machine wrapped for that parent, TPM2_Import unwraps
// it, and List reports that it was not made here. A key that may leave the TPM is
// [keystore.ErrWeakKey], one with a policy or a parent of another kind
// errors.ErrUnsupported, one that is not for the algorithm [keystore.ErrWrongKey], and one
// of another TPM [keystore.ErrForeign]. The key is used once: its authorization value must
// be the PIN of the store, or empty. Empty is tried if the file or the store says so, if
// the file does not say, or if a wrong value is harmless.
func (s *Store) ImportTSS2(label string, a keystore.Algorithm, text []byte) (keystore.Version, error) {
	f, err := ParseTSS2(text)
	if err != nil {
		return keystore.Version{}, err
	}
	if label == "" || a.Sealing() || label == SealLabel {
		return keystore.Version{}, fmt.Errorf("tpm: a %v key cannot have the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	if _, err := inspectAdopted(a, f.Public); err != nil {
		return keystore.Version{}, err
	}
	return s.provisioned.addKey(label, a, func() (storedKey, error) { return s.provisioned.adopt(a, f) })
}
