package keys

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/tpm/fleet"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A PSK is a pre-shared key set on its way to a device: JSON, readable by
// its owner only. Wrapping is derived from the others where it is missing.
type PSK struct {
	Identity   string `json:"identity"`
	Encryption []byte `json:"encryption"`
	MAC        []byte `json:"mac"`
	Wrapping   []byte `json:"wrapping,omitempty"`
}

// NewPSK draws a key set. A wrapping key of its own cannot be computed from the
// others; a derived one is for peers that are not told it.
func NewPSK(identity string, derive bool) *PSK {
	k := &PSK{Identity: identity, Encryption: make([]byte, 16), MAC: make([]byte, 32)}
	rand.Read(k.Encryption)
	rand.Read(k.MAC)
	if derive {
		k.Wrapping = entityauth.DeriveWrappingKey(k.Encryption, k.MAC)
		return k
	}
	k.Wrapping = make([]byte, 16)
	rand.Read(k.Wrapping)
	return k
}

// Derived reports whether the wrapping key follows from the others.
func (k *PSK) Derived() bool {
	from := entityauth.DeriveWrappingKey(k.Encryption, k.MAC)
	defer clear(from)
	return subtle.ConstantTimeCompare(from, k.Wrapping) == 1
}

// TellDerived warns that the wrapping key was derived without being asked for.
const TellDerived = "its wrapping key is derived from the other two; msl-hsm entity add --generate-psk draws one that is not"

// ReadPSK reads a file of keys, and derives the wrapping key where it is missing.
func ReadPSK(path string) (*PSK, error) { return ReadKeySet(path, true) }

// ReadKeySet reads a file of keys. The wrapping key may be missing where it is not
// derived.
func ReadKeySet(path string, derive bool) (*PSK, error) {
	text, err := ReadPrivate(path)
	if err != nil {
		return nil, exit.WithCode(fmt.Errorf("pre-shared keys: %s: %w", path, err), exit.Secret)
	}
	defer text.Close()
	k := &PSK{}
	if err := k.decode(text.Bytes()); err != nil {
		k.Wipe()
		// The decoder's own words may quote what it read.
		return nil, exit.WithCode(fmt.Errorf("pre-shared keys: %s is not a JSON object of identity, encryption and mac (Base64)", path), exit.Secret)
	}
	if k.Wrapping == nil && derive {
		k.Wrapping = entityauth.DeriveWrappingKey(k.Encryption, k.MAC)
	}
	if len(k.Encryption) != 16 || len(k.MAC) != 32 || k.Wrapping != nil && len(k.Wrapping) != 16 {
		k.Wipe()
		return nil, exit.WithCode(fmt.Errorf("pre-shared keys: %s: want encryption of 16 bytes, mac of 32 and wrapping of 16", path), exit.Secret)
	}
	return k, nil
}

// decode reads the JSON form. Unlike a json.Decoder, json.Unmarshal makes no copy
// of the text; it takes members that it does not know, so they are looked for first.
func (k *PSK) decode(text []byte) error {
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

// Write makes a file of the keys, which only its owner can read. One that is there is an
// error.
func (k *PSK) Write(path string) error {
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

// encode writes the JSON form member by member: what package json makes it keeps
// parts of.
func (k *PSK) encode() (*lockedmem.Buffer, error) {
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
func (k *PSK) Wipe() {
	clear(k.Encryption)
	clear(k.MAC)
	clear(k.Wrapping)
}

// Seal makes the form in which a server keeps a key set: the keys pass through
// the key store once, and come out closed. The MAC key is a block, so that nobody
// computes the wrapping key from it.
func (k *PSK) Seal(store Importing) (*msl.SealedPSK, error) {
	seal := func(use string, a keystore.Algorithm, raw []byte) ([]byte, error) {
		key, err := store.Import(a, raw)
		if err != nil {
			return nil, fmt.Errorf("import pre-shared key: %w", err)
		}
		defer key.Close()
		blob, err := store.Seal(key, msl.PSKContext(use, k.Identity))
		if err != nil {
			return nil, fmt.Errorf("seal pre-shared key: %w", Missing(err, MakeServerKeys))
		}
		return blob, nil
	}
	sealed := &msl.SealedPSK{}
	var err error
	if sealed.Encryption, err = seal(msl.PSKEncryption, keystore.AES128CBC, k.Encryption); err != nil {
		return nil, err
	}
	block := keystore.HMACBlock(k.MAC)
	defer clear(block)
	if sealed.MAC, err = seal(msl.PSKMAC, keystore.HMACSHA256Block, block); err != nil {
		return nil, err
	}
	sealed.Wrapping, err = seal(msl.PSKWrapping, keystore.AESWrap128, k.Wrapping)
	return sealed, err
}

// Own makes the device's side of a key set: session keys of its key store. The
// keys of a model group have no wrapping key.
func (k *PSK) Own(store keystore.Importer, wrapping bool) (*entityauth.KeySet, error) {
	encryption, err := store.Import(keystore.AES128CBC, k.Encryption)
	if err != nil {
		return nil, err
	}
	block := keystore.HMACBlock(k.MAC)
	defer clear(block)
	mac, err := store.Import(keystore.HMACSHA256Block, block)
	if err != nil {
		return nil, err
	}
	c, okC := encryption.(keystore.Cipher)
	m, okM := mac.(keystore.MAC)
	if !okC || !okM {
		return nil, keystore.ErrWrongKey
	}
	if !wrapping {
		return entityauth.NewKeySet(c, m, nil), nil
	}
	unwraps, err := store.Import(keystore.AESUnwrap128, k.Wrapping)
	if err != nil {
		return nil, err
	}
	return entityauth.NewKeySet(c, m, unwraps), nil
}

// Reveals makes the wrapping key once more, for ladders: their form forces its
// bytes and those of session keys through the process.
func (k *PSK) Reveals(store keystore.Importer) (keystore.Revealer, error) {
	key, err := store.Import(keystore.AESReveal128, k.Wrapping)
	if err != nil {
		return nil, err
	}
	r, ok := key.(keystore.Revealer)
	if !ok {
		return nil, keystore.ErrWrongKey
	}
	return r, nil
}

// WriteWrapped writes the keys for the TPM that has the storage key.
func (k *PSK) WriteWrapped(path string, storage []byte) error {
	set, err := fleet.WrapPSK(k.Identity, storage, fleet.PSK{Encryption: k.Encryption, MAC: k.MAC, Wrapping: k.Wrapping})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Create(path, append(text, '\n'), atomicfile.DefaultMode); err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	return nil
}
