package entityauth

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A PSKFile is a pre-shared key set in transit to a device: a JSON object in a file that
// only its owner can read, with the keys in Base64. msl-hsm entity add --generate-psk
// writes it. Call Wipe after use.
type PSKFile struct {
	Identity   string `json:"identity"`
	Encryption []byte `json:"encryption"` // AES-128, 16 bytes
	MAC        []byte `json:"mac"`        // HMAC-SHA256, 32 bytes
	// Wrapping is 16 bytes for AES key wrapping. If it is missing, it is derived from the
	// others ([DeriveWrappingKey]), or the device needs none.
	Wrapping []byte `json:"wrapping,omitempty"`
}

// Format writes no keys, whatever the verb.
func (k PSKFile) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "pre-shared keys of %q", k.Identity) }

// NewPSKFile draws a key set. An independent wrapping key cannot be computed from the
// others; a derived one is for peers that do not receive it.
func NewPSKFile(identity string, derive bool) *PSKFile {
	k, err := DrawPSKFile(rand.Reader, identity, derive)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return k
}

// DrawPSKFile is NewPSKFile with a given source of randomness, whose error it returns.
func DrawPSKFile(random io.Reader, identity string, derive bool) (*PSKFile, error) {
	k := &PSKFile{Identity: identity, Encryption: make([]byte, 16), MAC: make([]byte, 32), Wrapping: make([]byte, 16)}
	for _, key := range [][]byte{k.Encryption, k.MAC, k.Wrapping} {
		if _, err := io.ReadFull(random, key); err != nil {
			k.Wipe()
			return nil, fmt.Errorf("pre-shared keys: %w", err)
		}
	}
	if derive {
		k.Wrapping = DeriveWrappingKey(k.Encryption, k.MAC)
	}
	return k, nil
}

// maxPSKFile is how many bytes a file may have.
const maxPSKFile = 64 << 10

// ReadPSKFile reads a key file, which others must not be able to read. With derive, a
// missing wrapping key is derived from the others. Errors quote nothing of the content.
func ReadPSKFile(path string, derive bool) (*PSKFile, error) {
	text, err := secret.ReadFile(path, maxPSKFile)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	defer text.Close()
	k := &PSKFile{}
	if err := k.decode(text.Bytes()); err != nil {
		k.Wipe()
		return nil, fmt.Errorf("key file %s is not a JSON object of identity, encryption and mac (Base64)", path)
	}
	if k.Wrapping == nil && derive {
		k.Wrapping = DeriveWrappingKey(k.Encryption, k.MAC)
	}
	if len(k.Encryption) != 16 || len(k.MAC) != 32 || k.Wrapping != nil && len(k.Wrapping) != 16 {
		k.Wipe()
		return nil, fmt.Errorf("key file %s: want encryption of 16 bytes, mac of 32 and wrapping of 16", path)
	}
	return k, nil
}

// Derived reports whether the wrapping key follows from the others.
func (k *PSKFile) Derived() bool {
	from := DeriveWrappingKey(k.Encryption, k.MAC)
	defer clear(from)
	return subtle.ConstantTimeCompare(from, k.Wrapping) == 1
}

// decode reads the JSON form. Unlike a json.Decoder, json.Unmarshal makes no copy of the
// text; it ignores unknown members, so they are looked for first.
func (k *PSKFile) decode(text []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	for _, value := range members {
		clear(value)
	}
	for name := range members {
		if !slices.Contains([]string{"identity", "encryption", "mac", "wrapping"}, strings.ToLower(name)) {
			return fmt.Errorf("unknown member %q", name)
		}
	}
	return json.Unmarshal(text, k)
}

// Write writes the keys to a new file that only its owner can read. An existing file is
// an error.
func (k *PSKFile) Write(path string) error {
	text, err := k.encode()
	if err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	defer text.Close()
	if err := atomicfile.Create(path, text.Bytes(), atomicfile.DefaultMode); err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	return nil
}

// encode writes the JSON form member by member, since package json keeps parts of what it
// writes.
func (k *PSKFile) encode() (*lockedmem.Buffer, error) {
	identity, err := json.Marshal(k.Identity)
	if err != nil {
		return nil, err
	}
	room := lockedmem.New(len(identity) + 2*(len(k.Encryption)+len(k.MAC)+len(k.Wrapping)) + 128)
	defer room.Close()
	b := append(append(room.Bytes()[:0], "{\n  \"identity\": "...), identity...)
	for _, key := range []struct {
		name string
		raw  []byte
	}{{"encryption", k.Encryption}, {"mac", k.MAC}, {"wrapping", k.Wrapping}} {
		if len(key.raw) == 0 {
			continue
		}
		b = append(append(append(b, ",\n  \""...), key.name...), "\": \""...)
		b = append(base64.StdEncoding.AppendEncode(b, key.raw), '"')
	}
	return lockedmem.Copy(append(b, "\n}\n"...)), nil
}

// Wipe overwrites the keys.
func (k *PSKFile) Wipe() {
	clear(k.Encryption)
	clear(k.MAC)
	clear(k.Wrapping)
	lockedmem.ClearRegisters()
}

// A Sealer is a key store that seals keys which this process has seen.
type Sealer interface {
	keystore.Importer
	Seal(k keystore.Key, context []byte) ([]byte, error)
	Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error)
}

// Seal makes the form in which a server keeps a key set: the keys pass through the key
// store once, and come out sealed. The MAC key is a block (keystore.HMACBlock), so that a
// derived wrapping key cannot be computed from it.
func (k *PSKFile) Seal(store Sealer) (*msl.SealedPSK, error) {
	block := keystore.HMACBlock(k.MAC)
	defer clear(block)
	encryption, errE := k.seal(store, msl.PSKEncryption, keystore.AES128CBC, k.Encryption)
	mac, errM := k.seal(store, msl.PSKMAC, keystore.HMACSHA256Block, block)
	wrapping, errW := k.seal(store, msl.PSKWrapping, keystore.AESWrap128, k.Wrapping)
	for _, err := range []error{errE, errM, errW} {
		if err != nil {
			return nil, err
		}
	}
	return &msl.SealedPSK{Encryption: encryption, MAC: mac, Wrapping: wrapping}, nil
}

func (k *PSKFile) seal(store Sealer, use string, a keystore.Algorithm, raw []byte) ([]byte, error) {
	key, err := store.Import(a, raw)
	if err != nil {
		return nil, fmt.Errorf("import pre-shared key: %w", err)
	}
	defer key.Close()
	blob, err := store.Seal(key, msl.PSKContext(use, k.Identity))
	if err != nil {
		return nil, fmt.Errorf("seal pre-shared key: %w", err)
	}
	if err := opens(store, key, blob, msl.PSKContext(use, k.Identity)); err != nil {
		return nil, fmt.Errorf("pre-shared key: what the key store sealed does not open as the same key: %w", err)
	}
	return blob, nil
}

// opens refuses a sealed key that does not open as the key that it was made of: one wrong answer of
// the device would lock the entity out, and nobody would know why.
func opens(store Sealer, key keystore.Key, blob, context []byte) error {
	again, err := store.Unseal(key.Algorithm(), blob, context)
	if errors.Is(err, keystore.ErrForeign) {
		return fmt.Errorf("%v: %w", err, keystore.ErrUnavailable)
	}
	if err != nil {
		return err
	}
	defer again.Close()
	constant := []byte("msl-hsm: is it sealed as it was?")
	want, errW := keystore.Computed(key, constant)
	got, errG := keystore.Computed(again, constant)
	if err := errors.Join(errW, errG); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return keystore.ErrUnavailable
	}
	return nil
}

// KeySet makes the device's side of a key set: session keys in its key store. If wrapping
// is false, it has no wrapping key, like the keys of a model group.
func (k *PSKFile) KeySet(store keystore.Importer, wrapping bool) (*KeySet, error) {
	block := keystore.HMACBlock(k.MAC)
	defer clear(block)
	c, errC := imported[keystore.Cipher](store, keystore.AES128CBC, k.Encryption)
	m, errM := imported[keystore.MAC](store, keystore.HMACSHA256Block, block)
	set := NewKeySet(c, m, nil)
	err := errors.Join(errC, errM)
	if err == nil && wrapping {
		set.Wrapping, err = store.Import(keystore.AESUnwrap128, k.Wrapping)
	}
	if err != nil {
		closeAll(c, m)
		return nil, err
	}
	return set, nil
}

// Revealer makes the wrapping key once more, for ladders: their form forces its bytes,
// and those of session keys, through the process.
func (k *PSKFile) Revealer(store keystore.Importer) (keystore.Revealer, error) {
	return imported[keystore.Revealer](store, keystore.AESReveal128, k.Wrapping)
}

// imported brings a key into a store, as the required interface.
func imported[K any](store keystore.Importer, a keystore.Algorithm, raw []byte) (k K, err error) {
	key, err := store.Import(a, raw)
	if err != nil {
		return k, err
	}
	k, ok := key.(K)
	if !ok {
		return k, errors.Join(fmt.Errorf("%v: %w", a, keystore.ErrWrongKey), key.Close())
	}
	return k, nil
}

func closeAll(keys ...io.Closer) {
	for _, k := range keys {
		if k != nil {
			k.Close()
		}
	}
}
