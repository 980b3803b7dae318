package msl

import (
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Custody says where the bytes of session keys may exist.
type Custody uint8

const (
	// CustodySealed is the default: session keys are made in a key store and leave it
	// only wrapped. A key exchange that would bring them into this process is treated as
	// not configured.
	CustodySealed Custody = iota
	// CustodyImported also allows key exchanges whose form forces key bytes through the
	// process. The bytes exist for that one exchange, in locked memory that is then
	// overwritten; afterwards the keys are in the key store, as in the sealed mode.
	CustodyImported
	// CustodyShared issues and opens master tokens in the form of the
	// reference stacks, for a network where they issue and read the same
	// tokens. The bytes of all session keys pass through the process: when a
	// token is issued, and when one is opened. In the key store the keys are
	// not sealed, and so not locked.
	CustodyShared
)

var custodyNames = [...]string{CustodySealed: "sealed", CustodyImported: "imported", CustodyShared: "shared"}

// String returns the name that ParseCustody reads.
func (c Custody) String() string {
	if int(c) >= len(custodyNames) {
		return fmt.Sprintf("custody(%d)", uint8(c))
	}
	return custodyNames[c]
}

// ParseCustody reads a name written by String.
func ParseCustody(name string) (Custody, error) {
	for c, n := range custodyNames {
		if n == name {
			return Custody(c), nil
		}
	}
	return 0, fmt.Errorf("msl: unknown custody %q: want sealed, imported or shared", name)
}

// MarshalText writes the name.
func (c Custody) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name.
func (c *Custody) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCustody(string(text))
	return err
}

// A Side is one of the two ends of a key exchange.
type Side uint8

// The sides of a key exchange.
const (
	RequestingSide Side = iota + 1 // makes the offer, and ends up with a master token
	RespondingSide                 // answers the offer, and issues the token
)

// String names the side.
func (s Side) String() string {
	switch s {
	case RequestingSide:
		return "requester"
	case RespondingSide:
		return "responder"
	}
	return fmt.Sprintf("side(%d)", uint8(s))
}

// MarshalText writes the name.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// An Exposure is what one side of a key exchange declares about key bytes.
type Exposure struct {
	// Bytes is true if the form of the exchange forces the bytes of session keys,
	// or of keys that wrap them, into the memory of the process, whatever the key
	// store.
	Bytes bool
	// Why says what forces them there, or what keeps them out.
	Why string
}

// permits reports whether the mode allows one side of a key exchange.
func (c Custody) permits(e Exposure) bool { return c != CustodySealed || !e.Bytes }

// permitted returns the exchanges of one side that the mode allows.
func permitted[X interface{ Exposes() Exposure }](c Custody, all []X) []X {
	var some []X
	for _, x := range all {
		if c.permits(x.Exposes()) {
			some = append(some, x)
		}
	}
	return some
}

// Sizes of session keys.
const (
	encryptionKeySize = 16
	signatureKeySize  = 32
)

// A RawKeys holds the bytes of a pair of session keys in locked memory. The owner must
// close it, or pass it to Import.
type RawKeys struct{ memory *lockedmem.Buffer }

// NewRawKeys returns room for a pair of session keys, filled with zeros.
func NewRawKeys() *RawKeys {
	return &RawKeys{lockedmem.New(encryptionKeySize + signatureKeySize)}
}

// DrawRawKeys draws a pair of session keys; a nil r means crypto/rand.
func DrawRawKeys(r io.Reader) (*RawKeys, error) {
	k := NewRawKeys()
	if _, err := io.ReadFull(orRandom(r), k.memory.Bytes()); err != nil {
		k.Close()
		return nil, fail(ErrInternalException, "draw session keys", err)
	}
	return k, nil
}

// Encryption returns the 16 bytes of the AES key without copying them; nil after Close.
func (k *RawKeys) Encryption() []byte { return k.part(0, encryptionKeySize) }

// Signature returns the 32 bytes of the HMAC-SHA256 key without copying them; nil after
// Close.
func (k *RawKeys) Signature() []byte {
	return k.part(encryptionKeySize, encryptionKeySize+signatureKeySize)
}

func (k *RawKeys) part(from, to int) []byte {
	b := k.memory.Bytes()
	if b == nil {
		return nil
	}
	return b[from:to:to]
}

// Close overwrites the bytes. It may be called more than once.
func (k *RawKeys) Close() { k.memory.Close() }

// GenerateSessionKeys makes session keys for a key exchange that does not need to see
// them. They are made in the store, except in the shared mode: its tokens hold the key
// bytes, which are drawn from r. A nil r means crypto/rand.
func (c Custody) GenerateSessionKeys(store keystore.Store, r io.Reader) (*SessionKeys, error) {
	if c != CustodyShared {
		return GenerateSessionKeys(store)
	}
	raw, err := DrawRawKeys(r)
	if err != nil {
		return nil, err
	}
	return c.Import(store, raw)
}

// Import makes session keys from bytes that this process has. It takes ownership of raw
// and overwrites it on every path; in the shared mode, only when the token is issued or
// the keys are released.
func (c Custody) Import(store keystore.Store, raw *RawKeys) (*SessionKeys, error) {
	importer, ok := store.(keystore.Importer)
	if !ok {
		raw.Close()
		return nil, fail(ErrKeyImportError, "import session keys", errors.ErrUnsupported)
	}
	keys, err := UnwrapSessionKeys(raw.Encryption(), raw.Signature(), importer.Import)
	if err != nil {
		raw.Close()
		return nil, KeyFailure(ErrSessionKeyCreationFailure, "import session keys", err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	if c != CustodyShared {
		raw.Close()
		return keys, nil
	}
	keys.raw.Store(raw)
	return keys, nil
}
