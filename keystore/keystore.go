package keystore

import (
	"cmp"
	"crypto"
	"io"
)

// A Store is a place where keys live. It is safe for concurrent use.
//
// Calls into a device cannot be canceled, so no method takes a context; if no device
// session is free within the store's own bound, the error is [ErrBusy].
type Store interface {
	// Generate makes a session key or, for an RSA or EC algorithm, a session key pair. It is
	// destroyed when it is closed. Until it is sealed it may leave the store wrapped, by Wrap,
	// WrapFor or Seal, and in no other way.
	Generate(a Algorithm) (Key, error)

	// Lookup finds a provisioned key by its label: every version of it, newest first. If there
	// is none the error is [ErrNotFound]; if one lacks the protection that its algorithm
	// requires it is [ErrWeakKey]. These keys belong to the store: closing one releases
	// nothing in the device.
	Lookup(label string) ([]Version, error)

	// Seal wraps k under the store's own sealing key, bound to context: only Unseal with the
	// same algorithm, context and store undoes it. Afterwards k cannot leave the store in any
	// way: it is locked when Seal returns, even with an error. The error is [ErrLocked] if k
	// was locked already, and errors.ErrUnsupported if this store cannot protect sealed keys
	// of the algorithm.
	Seal(k Key, context []byte) ([]byte, error)

	// Unseal makes a locked key from what Seal returned. With another algorithm, context or
	// store, or a changed byte, the error is [ErrForeign].
	Unseal(a Algorithm, blob, context []byte) (Key, error)

	// Close closes every key made by the store and the store itself.
	// Operations after it return [ErrClosed].
	io.Closer
}

// A Key is a handle to a key of one algorithm. Close destroys a session key; operations
// after it return [ErrClosed]. Close may be called more than once.
type Key interface {
	Algorithm() Algorithm
	io.Closer
}

// A Version is one version of a provisioned key. Numbers start at 1.
type Version struct {
	Number uint32
	Key    Key
}

// A Cipher encrypts with AES in CBC mode and PKCS #7 padding (RFC 5652 section 6.3). The
// initialization vector has 16 bytes and must be unpredictable. The caller owns the
// returned bytes. If a ciphertext does not decrypt the error is [ErrBadData], whatever is
// wrong with it.
type Cipher interface {
	Key
	Encrypt(iv, plaintext []byte) ([]byte, error)
	Decrypt(iv, ciphertext []byte) ([]byte, error)
}

// A MAC computes the full tag of HMAC-SHA256 (32 bytes, RFC 2104) or AES-CMAC (16 bytes,
// RFC 4493). Verify it by a comparison in constant time.
type MAC interface {
	Key
	Sum(data []byte) ([]byte, error)
}

// A Wrapper wraps a key of the same store with AES Key Wrap (RFC 3394). The result is eight
// bytes longer than the key. If the key is locked the error is [ErrLocked].
type Wrapper interface {
	Key
	Wrap(k Key) ([]byte, error)
}

// An Unwrapper makes a session key from what a peer wrapped, by AES Key Wrap or RSA-OAEP
// with SHA-1. The new key is locked if the unwrapping key is provisioned, and may be sealed
// once if it was generated for one exchange. If data does not unwrap the error is
// [ErrBadData].
type Unwrapper interface {
	Key
	Unwrap(a Algorithm, wrapped []byte) (Key, error)
}

// A DataWrapper is a [Wrapper] that also wraps bytes of this process as if they were a key:
// AES Key Wrap (RFC 3394) of two or more blocks of eight bytes. It gives no more power than
// importing a key and wrapping it. For any other length the error is [ErrBadData]. The
// caller keeps raw and wipes it.
type DataWrapper interface {
	Wrapper
	WrapData(raw []byte) ([]byte, error)
}

// A Revealer undoes AES Key Wrap (RFC 3394) into the memory of this process. It is the only
// way for wrapped bytes to leave a store, and only keys made for it implement it. The
// caller owns the bytes and wipes them. If data does not unwrap the error is [ErrBadData].
type Revealer interface {
	Key
	Reveal(wrapped []byte) ([]byte, error)
}

// A PeerWrapper is a store that wraps a key under a peer's public key. An
// *rsa.PublicKey means RSA-OAEP with SHA-1, MGF1-SHA-1 and no label (RFC 8017).
type PeerWrapper interface {
	WrapFor(peer crypto.PublicKey, k Key) ([]byte, error)
}

// An Importer is a store that accepts key bytes from this process. The key is like one from
// Generate. The caller keeps raw and wipes it.
type Importer interface {
	Import(a Algorithm, raw []byte) (Key, error)
}

// A RandomSource is a store whose device has a random number generator of its own.
type RandomSource interface {
	// Random fills p with random bytes of the device, which may take many calls into it. After
	// an error the contents of p are useless. If the device has no generator the error is
	// errors.ErrUnsupported.
	Random(p []byte) error
}

// A Duplicated is a key wrapped for a storage key of a TPM 2.0, in the form that
// TPM2_Import takes (TPM 2.0 Library, Part 1, section 23).
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
	TPM               bool   // imports wrapped keys with TPM2_Import, and does not wrap or unwrap in any other way
}

// A Changing store has provisioned keys that other programs can change while it is open.
type Changing interface {
	// Refresh makes the store look up the keys with these labels, or all keys, again at their
	// next use.
	Refresh(labels ...string) error
	// SealWith makes Seal use that version of the sealing key or, if it does not exist, the
	// next lower one; zero means the newest.
	SealWith(label string, version uint32) error
}

// A Resealer is a store that can seal its blobs again with the current version of its
// sealing keys. The key does not leave the store in any other way. If a blob was not sealed
// here for this context the error is [ErrForeign]. If its key can never leave the device
// again the error is [ErrLocked]; Info.Reseals and Info.Trusted of the sealing keys show
// which keys can.
type Resealer interface {
	Reseal(blob, context []byte) ([]byte, error)
}

// An Admin is a store whose provisioned keys can be made and destroyed: the
// work of a set-up command, never of a serving process.
type Admin interface {
	// Create makes the next version of the provisioned key label. If the label belongs to
	// another algorithm the error is [ErrExists].
	Create(label string, a Algorithm) (Version, error)
	// List describes every provisioned key, by label, newest version first.
	List() ([]Info, error)
	// Destroy removes one version of a key; version 0 means every version.
	Destroy(label string, version uint32) error
}

// A Provisioner is a store that takes provisioned keys from outside.
type Provisioner interface {
	// Provision makes the next version of the provisioned key label from bytes that this
	// process has seen. The caller keeps raw and wipes it.
	Provision(label string, a Algorithm, raw []byte) (Version, error)
}

// Info is the evidence about one provisioned key. A false field may also mean that the
// device does not report it.
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

	// Stored is set if the key differs in its device: its label there, and its algorithm.
	Stored string `json:"stored,omitempty"`

	Reseals bool `json:"reseals,omitempty"` // of a sealing key: a newer, trusted one can seal its blobs again
	Trusted bool `json:"trusted,omitempty"` // it may wrap keys that only trusted keys can wrap

	Usages     []string `json:"usages"`               // encrypt, sign, wrap, …
	Mechanisms []string `json:"mechanisms,omitempty"` // the only ones allowed, if restricted
	Weaknesses []string `json:"weaknesses,omitempty"` // why Lookup would refuse it
	Untold     []string `json:"untold,omitempty"`     // attributes that the device does not report as it should, so that weaknesses which follow from them may not exist
	Notes      []string `json:"notes,omitempty"`      // ways in which newer keys are better; not a reason for Lookup to refuse it
}

// Compare orders keys by their labels, and puts the newest version of each first.
func (i Info) Compare(other Info) int {
	return cmp.Or(cmp.Compare(i.Label, other.Label), cmp.Compare(other.Version, i.Version))
}
