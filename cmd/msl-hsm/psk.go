package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A pskFile is a pre-shared key set on its way to a device: JSON, readable by
// its owner only. Wrapping is derived from the others where it is missing.
type pskFile struct {
	Identity   string `json:"identity"`
	Encryption []byte `json:"encryption"`
	MAC        []byte `json:"mac"`
	Wrapping   []byte `json:"wrapping,omitempty"`
}

// newPSK draws a key set. A wrapping key of its own cannot be computed from the
// others; a derived one is for peers that are not told it.
func newPSK(identity string, derive bool) *pskFile {
	k := &pskFile{Identity: identity, Encryption: make([]byte, 16), MAC: make([]byte, 32)}
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

// derived reports whether the wrapping key follows from the others.
func (k *pskFile) derived() bool {
	from := entityauth.DeriveWrappingKey(k.Encryption, k.MAC)
	defer clear(from)
	return subtle.ConstantTimeCompare(from, k.Wrapping) == 1
}

// tellDerived says so where nobody asked for it.
const tellDerived = "its wrapping key is derived from the other two; msl-hsm entity add --generate-psk draws one that is not"

func readPSK(path string) (*pskFile, error) { return readKeySet(path, true) }

// readKeySet reads a file of keys. The wrapping key may be missing where it is not
// derived.
func readKeySet(path string, derive bool) (*pskFile, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, coded{fmt.Errorf("pre-shared keys: %s: %w", path, err), exitSecret}
	}
	defer text.Close()
	k := &pskFile{}
	if err := k.decode(text.Bytes()); err != nil {
		k.wipe()
		// The decoder's own words may quote what it read.
		return nil, coded{fmt.Errorf("pre-shared keys: %s is not a JSON object of identity, encryption and mac (Base64)", path), exitSecret}
	}
	if k.Wrapping == nil && derive {
		k.Wrapping = entityauth.DeriveWrappingKey(k.Encryption, k.MAC)
	}
	if len(k.Encryption) != 16 || len(k.MAC) != 32 || k.Wrapping != nil && len(k.Wrapping) != 16 {
		k.wipe()
		return nil, coded{fmt.Errorf("pre-shared keys: %s: want encryption of 16 bytes, mac of 32 and wrapping of 16", path), exitSecret}
	}
	return k, nil
}

// decode reads the JSON form. Unlike a json.Decoder, json.Unmarshal makes no copy
// of the text; it takes members that it does not know, so they are looked for first.
func (k *pskFile) decode(text []byte) error {
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

func (k *pskFile) write(path string) error {
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
func (k *pskFile) encode() (*lockedmem.Buffer, error) {
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

func (k *pskFile) wipe() {
	clear(k.Encryption)
	clear(k.MAC)
	clear(k.Wrapping)
}

// seal makes the form in which a server keeps a key set: the keys pass through
// the key store once, and come out closed. The MAC key is a block, so that nobody
// computes the wrapping key from it.
func (k *pskFile) seal(store importing) (*msl.SealedPSK, error) {
	seal := func(use string, a keystore.Algorithm, raw []byte) ([]byte, error) {
		key, err := store.Import(a, raw)
		if err != nil {
			return nil, fmt.Errorf("import pre-shared key: %w", err)
		}
		defer key.Close()
		blob, err := store.Seal(key, msl.PSKContext(use, k.Identity))
		if err != nil {
			return nil, fmt.Errorf("seal pre-shared key: %w", missing(err, makeServerKeys))
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

// own makes the device's side of a key set: session keys of its key store. The
// keys of a model group have no wrapping key.
func (k *pskFile) own(store keystore.Importer, wrapping bool) (*entityauth.KeySet, error) {
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

// reveals makes the wrapping key once more, for ladders: their form forces its
// bytes and those of session keys through the process.
func (k *pskFile) reveals(store keystore.Importer) (keystore.Revealer, error) {
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
