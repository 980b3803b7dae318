package keyx

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// TPMResponder is the responder of the scheme TPM_IMPORT, an extension of this project
// that no other stack knows: session keys enter the requester's TPM 2.0 as duplicated
// objects (TPM 2.0 Library, Part 1, section 23), so that the requester's process never
// sees them. A reference peer refuses a whole message that offers it, so offer it only to
// servers of this project.
//
// The request shows a storage key made for this one exchange, certified by the
// attestation key of an enrolled device. The certified data covers the master token or
// the identity, the message id, the issuer's time and the storage key: a request thereby
// proves that the device still has its TPM, once per master token. A chip without AES
// receives the encryption key as an RSA-OAEP ciphertext instead, for a separate pair
// certified in the same way: its bytes reach the requester's process, while the HMAC key
// stays inside.
//
// Without a master token, a request counts once, at one responder and until that
// restarts. A copy that gets through is useless to its sender: the keys are wrapped for a
// storage key that was in one TPM, for one exchange.
type TPMResponder struct {
	// Store imports the session keys, which the responder draws in software: it must be a
	// keystore.Importer.
	Store keystore.Store
	// Verifier knows the attestation keys.
	Verifier TPMVerifier
	// Window is how far the time in a request may be from this side's clock; zero
	// means five minutes.
	Window time.Duration
	// Rand is for session keys; nil means crypto/rand.
	Rand io.Reader

	seen onceWindow
}

// A TPMVerifier checks and uses the keys of TPMs for a responder.
type TPMVerifier interface {
	// Certified checks that the attestation key of an identity, enrolled and not revoked,
	// certifies a key for that use in the same TPM. Any error refuses the request, except
	// those of a key store and msl.ErrInternalException.
	Certified(ctx context.Context, identity string, use TPMUse, c TPMCertified, qualifying []byte) error
	// Duplicate wraps the bytes of a key for a storage key. The caller must wipe raw.
	Duplicate(storage []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error)
	// EncryptOAEP encrypts for the key whose public area is given, with SHA-1.
	EncryptOAEP(public, raw []byte) ([]byte, error)
}

// A TPMUse is the purpose of a key in a TPM.
type TPMUse string

// The uses of keys in a request.
const (
	TPMStorage TPMUse = "storage" // restricted decryption: the parent of what is imported
	TPMDecrypt TPMUse = "decrypt" // RSA-OAEP to the host
)

// A TPMCertified is a public area (TPMT_PUBLIC) certified by an attestation key
// (TPM2_Certify: TPMS_ATTEST and TPMT_SIGNATURE).
type TPMCertified struct{ Public, Attest, Signature []byte }

const tpmScheme = "TPM_IMPORT"

// Scheme returns TPM_IMPORT.
func (*TPMResponder) Scheme() string { return tpmScheme }

// Exposes declares that the process needs the bytes to wrap them in the form that a TPM
// imports.
func (*TPMResponder) Exposes() msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "a TPM imports what was encrypted in a form that key stores do not make"}
}

// A tpmRequest is the key data of a request.
type tpmRequest struct {
	time    int64 // seconds
	storage TPMCertified
	oaep    TPMCertified // zero if both keys are imported
}

func (r *tpmRequest) encode() []byte {
	e := wire.NewEncoder(2048)
	e.Begin()
	e.Int("timestamp", r.time)
	encodeCertified(e, "storagekey", r.storage)
	if r.oaep.Public != nil {
		encodeCertified(e, "decryptionkey", r.oaep)
	}
	e.End()
	return e.Encoded()
}

func encodeCertified(e *wire.Encoder, name string, c TPMCertified) {
	e.BeginMember(name)
	e.Bytes("public", c.Public)
	e.Bytes("attest", c.Attest)
	e.Bytes("signature", c.Signature)
	e.End()
}

func parseTPMRequest(keydata []byte) (r tpmRequest, err error) {
	f := wire.ParseFields(keydata)
	r.time = f.Int("timestamp")
	if r.storage, err = parseCertified(f, "storagekey"); err == nil && f.Has("decryptionkey") {
		r.oaep, err = parseCertified(f, "decryptionkey")
	}
	return r, err
}

func parseCertified(f *wire.Fields, name string) (TPMCertified, error) {
	inner := f.Fields(name)
	c := TPMCertified{Public: inner.Bytes("public"), Attest: inner.Bytes("attest"), Signature: inner.Bytes("signature")}
	return c, malformed(inner)
}

// qualifying is what a TPM certifies along with a key: SHA-256 over a label, the
// requester, the message, the time and the key's public area, each with its length unless
// that is fixed.
func qualifying(from msl.Requester, seconds int64, public []byte) []byte {
	h := sha256.New()
	part := func(b []byte) {
		binary.Write(h, binary.BigEndian, uint32(len(b)))
		h.Write(b)
	}
	part([]byte("MSL TPM_IMPORT 1"))
	if from.Token != nil {
		part([]byte("mastertoken"))
		part(from.Token.Bytes())
	} else {
		part([]byte("identity"))
		part([]byte(from.Identity))
	}
	binary.Write(h, binary.BigEndian, [2]int64{from.MessageID, seconds})
	part(public)
	return h.Sum(nil)
}

// Check judges the form of a request.
func (*TPMResponder) Check(keydata []byte) error {
	_, err := parseTPMRequest(keydata)
	return err
}

// Respond checks what the device's attestation key certified, draws session keys and
// wraps them for the TPM. A request that is not certified, too old, or used before is
// error 7016.
func (x *TPMResponder) Respond(ctx context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	r, err := parseTPMRequest(keydata)
	if err != nil {
		return nil, nil, err
	}
	if err := x.judge(ctx, from, r); err != nil {
		return nil, nil, err
	}
	raw, err := msl.DrawRawKeys(x.Rand)
	if err != nil {
		return nil, nil, err
	}
	response, err := x.wrap(r, raw)
	if err != nil {
		raw.Close()
		return nil, nil, msl.Failure(msl.ErrWrapError, x.Scheme(), err)
	}
	keys, err := from.Custody.Import(x.Store, raw)
	return keys, response, err
}

func (x *TPMResponder) judge(ctx context.Context, from msl.Requester, r tpmRequest) error {
	if x.Verifier == nil {
		return msl.Failure(msl.ErrWrapNotSupported, x.Scheme(), errors.New("no verifier of attestation keys is configured"))
	}
	window, asked := x.Window, time.Unix(r.time, 0)
	if window == 0 {
		window = 5 * time.Minute
	}
	if d := from.Time.Sub(asked); d > window || d < -window {
		return msl.Failure(msl.ErrKeyXIncorrectData, x.Scheme(), errors.New("certified at another time: set the device's clock, or send again now that it knows ours"))
	}
	keys := map[TPMUse]TPMCertified{TPMStorage: r.storage}
	if r.oaep.Public != nil {
		keys[TPMDecrypt] = r.oaep
	}
	for use, c := range keys {
		err := x.Verifier.Certified(ctx, from.Identity, use, c, qualifying(from, r.time, c.Public))
		if err != nil {
			return msl.Failure(msl.ErrKeyXIncorrectData, x.Scheme(), err)
		}
	}
	if from.Token == nil && !x.seen.first(sha256.Sum256(r.storage.Attest), from.Time, window) {
		return msl.Failure(msl.ErrKeyXIncorrectData, x.Scheme(), errors.New("this certification was used before"))
	}
	return nil
}

// wrap encodes the two keys for the TPM.
func (x *TPMResponder) wrap(r tpmRequest, raw *msl.RawKeys) ([]byte, error) {
	e := wire.NewEncoder(2048)
	e.Begin()
	if r.oaep.Public != nil {
		sealed, err := x.Verifier.EncryptOAEP(r.oaep.Public, raw.Encryption())
		if err != nil {
			return nil, err
		}
		e.Bytes("encryptionkey", sealed)
	} else if err := x.duplicate(e, "encryptionkey", r, keystore.AES128CBC, raw.Encryption()); err != nil {
		return nil, err
	}
	if err := x.duplicate(e, "hmackey", r, keystore.HMACSHA256, raw.Signature()); err != nil {
		return nil, err
	}
	e.End()
	return e.Encoded(), nil
}

func (x *TPMResponder) duplicate(e *wire.Encoder, name string, r tpmRequest, a keystore.Algorithm, raw []byte) error {
	d, err := x.Verifier.Duplicate(r.storage.Public, a, raw)
	if err != nil {
		return err
	}
	e.BeginMember(name)
	e.Bytes("public", d.Public)
	e.Bytes("duplicate", d.Duplicate)
	e.Bytes("seed", d.Seed)
	e.End()
	return nil
}

// A onceWindow remembers what was used within a period. Older entries are dropped, since
// their timestamps are refused anyway.
type onceWindow struct {
	mu   sync.Mutex
	used map[[sha256.Size]byte]time.Time
}

// maxOnce bounds it to some 12 MB.
const maxOnce = 100_000

func (w *onceWindow) first(what [sha256.Size]byte, now time.Time, window time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.used == nil {
		w.used = map[[sha256.Size]byte]time.Time{}
	}
	if _, again := w.used[what]; again {
		return false
	}
	if len(w.used) >= maxOnce {
		for old, at := range w.used {
			if now.Sub(at) > 2*window {
				delete(w.used, old)
			}
		}
	}
	if len(w.used) >= maxOnce {
		return false
	}
	w.used[what] = now
	return true
}
