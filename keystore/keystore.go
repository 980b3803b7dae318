package keystore

import (
	"crypto"
	"io"
)

// A Store is a place where keys live. It is safe for use by many goroutines.
//
// Calls into a device cannot be cancelled, so no method takes a context; a
// store that has no free device session for longer than its own bound answers
// [ErrBusy].
type Store interface {
	// Generate makes a session key or, for an RSA or EC algorithm, a session
	// key pair. It is gone when it is closed. Until it is sealed it may leave
	// the store wrapped, by Wrap, WrapFor or Seal, and in no other way.
	Generate(a Algorithm) (Key, error)

	// Lookup finds a provisioned key by its label: every version of it,
	// newest first. No such label is [ErrNotFound]; a key that lacks the
	// protection its algorithm asks for is [ErrWeakKey]. Keys found so belong
	// to the store: closing one releases nothing in the device.
	Lookup(label string) ([]Version, error)

	// Seal wraps k under the store's own sealing key, bound to context: only
	// Unseal with the same algorithm, context and store undoes it. Afterwards k
	// cannot leave the store in any way: it is locked when Seal returns, also with
	// an error. A key that was locked before is [ErrLocked]; an algorithm whose
	// keys this store cannot protect when sealed is errors.ErrUnsupported.
	Seal(k Key, context []byte) ([]byte, error)

	// Unseal makes a locked key from what Seal returned. Another algorithm,
	// context, store or any changed byte is [ErrForeign].
	Unseal(a Algorithm, blob, context []byte) (Key, error)

	// Close closes every key made by the store and the store itself.
	// Operations after it return [ErrClosed].
	io.Closer
}

// A Key is a handle on a key of one algorithm. Close destroys a session key;
// operations after it return [ErrClosed]. Close may be called more than once.
type Key interface {
	Algorithm() Algorithm
	io.Closer
}

// A Version is one version of a provisioned key. Numbers start at 1.
type Version struct {
	Number uint32
	Key    Key
}

// A Cipher encrypts with AES in CBC mode and PKCS #7 padding (RFC 5652 section
// 6.3). The initialization vector has 16 bytes and must be unpredictable. The
// bytes returned are the caller's. A ciphertext that does not decrypt is
// [ErrBadData], whatever is wrong with it.
type Cipher interface {
	Key
	Encrypt(iv, plaintext []byte) ([]byte, error)
	Decrypt(iv, ciphertext []byte) ([]byte, error)
}

// A MAC computes the full tag of HMAC-SHA256 (32 bytes, RFC 2104) or AES-CMAC
// (16 bytes, RFC 4493). Verify by comparing in constant time.
type MAC interface {
	Key
	Sum(data []byte) ([]byte, error)
}

// A Wrapper wraps a key of the same store with AES Key Wrap (RFC 3394): eight
// bytes longer than the key. A locked key is [ErrLocked].
type Wrapper interface {
	Key
	Wrap(k Key) ([]byte, error)
}

// An Unwrapper makes a session key from what a peer wrapped, by AES Key Wrap or
// RSA-OAEP with SHA-1. The new key is locked where the unwrapping key is a
// provisioned one, and may be sealed once where it was generated for one
// exchange. Data that does not unwrap is [ErrBadData].
type Unwrapper interface {
	Key
	Unwrap(a Algorithm, wrapped []byte) (Key, error)
}

// A DataWrapper is a [Wrapper] that also wraps bytes of this process as if they
// were a key: AES Key Wrap (RFC 3394) of two or more blocks of eight bytes. It
// gives no more power than importing a key and wrapping it. Bytes of another length
// are [ErrBadData]. The caller keeps raw and wipes it.
type DataWrapper interface {
	Wrapper
	WrapData(raw []byte) ([]byte, error)
}

// A Revealer undoes AES Key Wrap (RFC 3394) into the memory of this process. It is
// the only way in which wrapped bytes come out of a store, and only keys that were
// made for it have it. The caller owns the bytes and wipes them. Data that does not
// unwrap is [ErrBadData].
type Revealer interface {
	Key
	Reveal(wrapped []byte) ([]byte, error)
}

// A PeerWrapper is a store that wraps a key under a peer's public key. An
// *rsa.PublicKey means RSA-OAEP with SHA-1, MGF1-SHA-1 and no label (RFC 8017).
type PeerWrapper interface {
	WrapFor(peer crypto.PublicKey, k Key) ([]byte, error)
}

// An Importer is a store that takes key bytes which this process has seen. The
// key is like one of Generate. The caller keeps raw and wipes it.
type Importer interface {
	Import(a Algorithm, raw []byte) (Key, error)
}

// A RandomSource is a store whose device has a random number generator of its own.
type RandomSource interface {
	// Random fills p with random bytes of the device, which may take many calls into
	// it. After an error p holds nothing of use. A device without a generator is
	// errors.ErrUnsupported.
	Random(p []byte) error
}

// A Duplicated is a key on its way into a TPM 2.0, wrapped for a storage key there
// in the form that TPM2_Import takes (TPM 2.0 Library, Part 1, section 23).
type Duplicated struct {
	Public    []byte // TPMT_PUBLIC of the key
	Duplicate []byte // contents of the TPM2B_PRIVATE
	Seed      []byte // contents of the TPM2B_ENCRYPTED_SECRET
}

// A Provider describes a kind of store, so that a program can say where the bytes of
// its keys are.
type Provider struct {
	Name              string // pkcs11, pkcs11-memory, tpm or soft
	InProcess         bool   // its keys are in the memory of this process
	SessionsInProcess bool   // its session keys are, and the others in a device
	TPM               bool   // imports wrapped keys as TPM2_Import does, and neither wraps nor unwraps in another way
}

// A Changing store has provisioned keys that other programs change while it is open.
type Changing interface {
	// Refresh has the keys with these labels, or all, looked for again when they are
	// used next.
	Refresh(labels ...string) error
	// SealWith has Seal use the version of the sealing key with that number or, where
	// that is not there, the one below it; zero means the newest.
	SealWith(label string, version uint32) error
}

// A Resealer is a store that can seal again what it sealed, with the version of its
// sealing keys that seals now. The key does not leave the store otherwise. A blob that was
// not sealed here for this context is [ErrForeign]. What never leaves the device again is
// [ErrLocked]; Info.Reseals and Info.Trusted of the sealing keys tell what does.
type Resealer interface {
	Reseal(blob, context []byte) ([]byte, error)
}

// An Admin is a store whose provisioned keys can be made and destroyed: the
// work of a set-up command, never of a serving process.
type Admin interface {
	// Create makes the next version of the provisioned key label. A label
	// that another algorithm has is [ErrExists].
	Create(label string, a Algorithm) (Version, error)
	// List describes every provisioned key, by label and falling version.
	List() ([]Info, error)
	// Destroy removes one version of a key; version 0 means every version.
	Destroy(label string, version uint32) error
}

// Info is the evidence about one provisioned key. A false claim may also mean that
// the device does not make that claim.
type Info struct {
	Label     string    `json:"label"`
	Version   uint32    `json:"version"`
	Algorithm Algorithm `json:"algorithm"`

	Sensitive        bool `json:"sensitive"`         // its value cannot be read
	AlwaysSensitive  bool `json:"always_sensitive"`  // and never could
	Extractable      bool `json:"extractable"`       // it may leave the device wrapped
	NeverExtractable bool `json:"never_extractable"` // and never might
	Local            bool `json:"local"`             // made in the device
	Modifiable       bool `json:"modifiable"`        // its usages can be changed
	Copyable         bool `json:"copyable"`          // it can be copied with other usages

	// Stored is what the key is in its device, where that is something else: the label
	// that it has there, and its algorithm.
	Stored string `json:"stored,omitempty"`

	Reseals bool `json:"reseals,omitempty"` // of a sealing key: what it sealed can be sealed again by a newer one that is trusted
	Trusted bool `json:"trusted,omitempty"` // it may wrap what only trusted keys wrap

	Usages     []string `json:"usages"`               // encrypt, sign, wrap, …
	Mechanisms []string `json:"mechanisms,omitempty"` // the only ones allowed, if restricted
	Weaknesses []string `json:"weaknesses,omitempty"` // why Lookup would refuse it
	Notes      []string `json:"notes,omitempty"`      // what newer keys have better; Lookup does not refuse it for that
}
