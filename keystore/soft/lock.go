package soft

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// The names of ciphers in a header.
const (
	xchacha20 = "XChaCha20-Poly1305"
	aes256gcm = "AES-256-GCM"
)

const saltSize = 16

// A header says how the records of a file are encrypted under a passphrase.
type header struct {
	Cipher string `json:"cipher"`
	KDF    string `json:"kdf"`
	Salt   []byte `json:"salt"`
	Cost
}

// A lock encrypts records: a header, and the key that it makes of a passphrase.
type lock struct {
	header
	key *lockedmem.Buffer
}

// newHeader has a fresh salt.
func newHeader(c Cost) header {
	h := header{Cipher: cipherFor(c), KDF: c.Function(), Salt: make([]byte, saltSize), Cost: c}
	rand.Read(h.Salt) // never fails
	return h
}

// cipherFor returns the cipher that goes with a function: both are those of FIPS 140-3, or
// neither is.
func cipherFor(c Cost) string {
	if c.Approved() {
		return aes256gcm
	}
	return xchacha20
}

// encode returns the beginning of a file with that header, which is associated data of
// the records.
func (h header) encode() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("soft: header: %w", err)
	}
	begin := append([]byte(fileMagic), 2)
	begin = binary.BigEndian.AppendUint16(begin, uint16(len(text)))
	return append(begin, text...), nil
}

// split takes a file without its checksum apart: its header, the bytes in which the
// header is, and the encrypted records.
func split(path string, data []byte) (h header, begin, records []byte, err error) {
	rest := data[len(fileMagic)+1:]
	switch version := data[len(fileMagic)]; version {
	case 1:
		return splitFirst(path, data)
	case 2:
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return h, nil, nil, fmt.Errorf("soft: %s is cut off: %w", path, keystore.ErrBadData)
		}
		size := int(binary.BigEndian.Uint16(rest))
		begin, records = data[:len(data)-len(rest)+2+size], rest[2+size:]
		h, err = parseHeader(path, rest[2:2+size])
		return h, begin, records, err
	default:
		return h, nil, nil, fmt.Errorf("soft: %s has version %d, and this msl-hsm knows 1 and 2: use a newer one: %w", path, version, errors.ErrUnsupported)
	}
}

// splitFirst is split for version 1, in which a salt follows and all else is fixed.
func splitFirst(path string, data []byte) (h header, begin, records []byte, err error) {
	size := len(fileMagic) + 1 + saltSize
	if len(data) < size {
		return h, nil, nil, fmt.Errorf("soft: %s is cut off: %w", path, keystore.ErrBadData)
	}
	begin, records = data[:size], data[size:]
	fixed := Cost{Time: 3, Memory: 64 << 10, Threads: 4}
	return header{Cipher: xchacha20, KDF: fixed.Function(), Salt: bytes.Clone(begin[size-saltSize:]), Cost: fixed}, begin, records, nil
}

// parseHeader reads the JSON of a header, which must be as this package writes it.
func parseHeader(path string, text []byte) (h header, err error) {
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("soft: %s has a header that cannot be read: %w", path, keystore.ErrBadData)
	}
	if h.Cipher != cipherFor(h.Cost) || h.KDF != h.Function() {
		return h, fmt.Errorf("soft: %s is encrypted with %q and %q, which this msl-hsm does not know: use a newer one: %w", path, h.Cipher, h.KDF, errors.ErrUnsupported)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(again, text) || len(h.Salt) != saltSize {
		return h, fmt.Errorf("soft: %s has a header with something that this msl-hsm does not know: use a newer one: %w", path, errors.ErrUnsupported)
	}
	return h, nil
}

// lock makes the key.
func (h header) lock(passphrase []byte) lock {
	return lock{h, lockedmem.Move(h.Cost.Key(passphrase, h.Salt))}
}

// aead returns the cipher. That of AES puts its nonce before the ciphertext by itself.
func (l lock) aead() (aead cipher.AEAD, err error) {
	if l.Cipher == xchacha20 {
		aead, err = chacha20poly1305.NewX(l.key.Bytes())
	} else {
		aead, err = newGCM(l.key.Bytes())
	}
	if err != nil {
		return nil, fmt.Errorf("soft: %s: %w", l.Cipher, err)
	}
	return aead, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal encrypts records and returns the file without its checksum.
func (l lock) seal(text []byte) ([]byte, error) {
	aead, err := l.aead()
	if err != nil {
		return nil, err
	}
	begin, err := l.encode()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails
	return aead.Seal(append(bytes.Clone(begin), nonce...), nonce, text, begin), nil
}

// open decrypts the records of a file that begins with begin.
func (l lock) open(path string, begin, records []byte) ([]byte, error) {
	aead, err := l.aead()
	if err != nil {
		return nil, err
	}
	if len(records) < aead.NonceSize() {
		return nil, fmt.Errorf("soft: %s is cut off: %w", path, keystore.ErrBadData)
	}
	nonce, sealed := records[:aead.NonceSize()], records[aead.NonceSize():]
	text, err := aead.Open(nil, nonce, sealed, begin)
	if err != nil {
		return nil, fmt.Errorf("soft: %s: wrong passphrase: %w", path, keystore.ErrPIN)
	}
	return text, nil
}

func (l lock) wipe() { l.key.Close() }
