package tpm

import (
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const (
	tss2Type = "TSS2 PRIVATE KEY"
	maxTSS2  = 64 << 10
)

// oidLoadableKey is the OID of the TCG for a key that TPM2_Load takes.
var oidLoadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// A tss2Key is the ASN.1 of a TSS2 private key, as tpm2-tools, tpm2-openssl and systemd
// read it ("ASN.1 Specification for TPM 2.0 Key Files"). The description is never
// written, because older readers fail on it.
type tss2Key struct {
	Type        asn1.ObjectIdentifier
	EmptyAuth   bool            `asn1:"optional,explicit,tag:0"`
	Policy      []asn1.RawValue `asn1:"optional,explicit,tag:1"`
	Secret      []byte          `asn1:"optional,explicit,tag:2"`
	AuthPolicy  []asn1.RawValue `asn1:"optional,explicit,tag:3"`
	Description string          `asn1:"optional,explicit,tag:4,utf8"`
	Parent      int64
	Public      []byte // TPM2B_PUBLIC
	Private     []byte // TPM2B_PRIVATE
}

// A TSS2 is a key file for other programs that use TPMs.
type TSS2 struct {
	EmptyAuth bool           // the key has no PIN
	Parent    tpm2.TPMHandle // persistent handle, or TPM_RH_OWNER
	Public    []byte         // TPMT_PUBLIC
	Private   []byte         // contents of the TPM2B_PRIVATE
}

// ParseTSS2 reads a PEM file of type TSS2 PRIVATE KEY. A damaged file is
// [keystore.ErrBadData]; a key with a policy, or one that is not for TPM2_Load, is
// errors.ErrUnsupported.
func ParseTSS2(text []byte) (*TSS2, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != tss2Type || len(text) > maxTSS2 {
		return nil, fmt.Errorf("tpm: no PEM block %q: %w", tss2Type, keystore.ErrBadData)
	}
	var k tss2Key
	rest, err := asn1.Unmarshal(block.Bytes, &k)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("tpm: TSS2 key: its ASN.1 is damaged: %w", keystore.ErrBadData)
	}
	if !k.Type.Equal(oidLoadableKey) || len(k.Policy)+len(k.AuthPolicy)+len(k.Secret) > 0 {
		return nil, fmt.Errorf("tpm: TSS2 key: it is not one for TPM2_Load without a policy: %w", errors.ErrUnsupported)
	}
	public, rest1, ok := cut16(k.Public)
	private, rest2, ok2 := cut16(k.Private)
	if !ok || !ok2 || len(rest1)+len(rest2) > 0 || k.Parent < 0 || k.Parent > 1<<32-1 {
		return nil, fmt.Errorf("tpm: TSS2 key: its blobs are damaged: %w", keystore.ErrBadData)
	}
	return &TSS2{EmptyAuth: k.EmptyAuth, Parent: tpm2.TPMHandle(k.Parent), Public: public, Private: private}, nil
}

// PEM writes the file that ParseTSS2 reads.
func (f *TSS2) PEM() ([]byte, error) {
	type file struct {
		Type      asn1.ObjectIdentifier
		EmptyAuth bool `asn1:"explicit,tag:0"`
		Parent    int64
		Public    []byte
		Private   []byte
	}
	der, err := asn1.Marshal(file{oidLoadableKey, f.EmptyAuth, int64(f.Parent), append16(nil, f.Public), append16(nil, f.Private)})
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
	f := TSS2{EmptyAuth: r.object.auth.Len() == 0, Parent: tpm2.TPMHandle(s.storage.key.persistent), Public: r.Public, Private: r.Private}
	return f.PEM()
}

// ImportTSS2 makes the next version of the provisioned key with a label from a TSS2 key
// file, whose parent must be the storage key of this store. A key with other attributes
// than those for the algorithm a is [keystore.ErrWeakKey]; one of another storage key
// or TPM is [keystore.ErrForeign]. The authorization value of the key, if it has one,
// must be the PIN of the store.
func (s *Store) ImportTSS2(label string, a keystore.Algorithm, text []byte) (keystore.Version, error) {
	f, err := ParseTSS2(text)
	if err != nil {
		return keystore.Version{}, err
	}
	e, err := inspect(a, f.Public)
	if err != nil {
		return keystore.Version{}, err
	}
	if e.pin == f.EmptyAuth {
		return keystore.Version{}, fmt.Errorf("tpm: TSS2 key: a key has dictionary attack protection if, and only if, it has a PIN: %w", keystore.ErrWeakKey)
	}
	if label == "" || a.Sealing() || label == SealLabel {
		return keystore.Version{}, fmt.Errorf("tpm: no %v key goes by the label %q: %w", a, label, keystore.ErrWrongKey)
	}
	return s.provisioned.add(label, a, func() (*object, error) {
		o := newObject(s.storage.key, f.Public, f.Private)
		if err := s.storage.try(o); err != nil {
			return nil, fmt.Errorf("tpm: TSS2 key of parent %#x, this store has %#x: %w", uint32(f.Parent), s.storage.key.persistent, err)
		}
		return o, nil
	})
}
