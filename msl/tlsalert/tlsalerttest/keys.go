package tlsalerttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
)

// Keys holds the secrets of one connection. It reads them in the format of the
// SSLKEYLOGFILE draft, as crypto/tls writes them to a KeyLogWriter.
type Keys struct {
	mu      sync.Mutex
	secrets map[string][]byte
}

// Write reads one line of a key log.
func (k *Keys) Write(line []byte) (int, error) {
	fields := strings.Fields(string(line))
	if len(fields) != 3 {
		return 0, errors.New("tlsalerttest: not a line of a key log")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.secrets == nil {
		k.secrets = map[string][]byte{}
	}
	secret, err := hex.DecodeString(fields[2])
	k.secrets[fields[0]] = secret
	if fields[0] == "CLIENT_RANDOM" {
		k.secrets["random"], _ = hex.DecodeString(fields[1])
	}
	return len(line), err
}

func (k *Keys) secret(name string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.secrets[name]; s != nil {
		return s, nil
	}
	return nil, errors.New("tlsalerttest: no " + name + " yet")
}

// A sealer encrypts the records of one direction.
type sealer struct {
	aead cipher.AEAD
	iv   []byte
}

func newSealer(key, iv []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead, iv}, err
}

// sealer13 derives the keys from a traffic secret (RFC 8446 section 7.3).
func (k *Keys) sealer13(name string) (sealer, error) {
	secret, err := k.secret(name)
	if err != nil {
		return sealer{}, err
	}
	key, err := expandLabel(secret, "key", 16)
	if err != nil {
		return sealer{}, err
	}
	iv, err := expandLabel(secret, "iv", 12)
	if err != nil {
		return sealer{}, err
	}
	return newSealer(key, iv)
}

func expandLabel(secret []byte, label string, size int) ([]byte, error) {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	return hkdf.Expand(sha256.New, secret, string(info), size)
}

// seal13 makes a record (RFC 8446 section 5.2).
func (s sealer) seal13(kind byte, data []byte, sequence uint64) []byte {
	inner := append(append([]byte{}, data...), kind)
	header := []byte{recordData, 3, 3, 0, byte(len(inner) + s.aead.Overhead())}
	nonce := append([]byte{}, s.iv...)
	for i, b := range binary.BigEndian.AppendUint64(nil, sequence) {
		nonce[4+i] ^= b
	}
	return s.aead.Seal(header, nonce, inner, header)
}

// sealer12 derives the keys from a master secret (RFC 5246 section 6.3).
func (k *Keys) sealer12(client bool, serverRandom []byte) (sealer, error) {
	master, err := k.secret("CLIENT_RANDOM")
	if err != nil {
		return sealer{}, err
	}
	random, err := k.secret("random")
	if err != nil {
		return sealer{}, err
	}
	block := prf12(master, append(append([]byte("key expansion"), serverRandom...), random...), 40)
	if client {
		return newSealer(block[:16], block[32:36])
	}
	return newSealer(block[16:32], block[36:40])
}

// prf12 is the pseudorandom function with SHA-256 (RFC 5246 section 5).
func prf12(secret, seed []byte, size int) []byte {
	sum := func(data ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, d := range data {
			h.Write(d)
		}
		return h.Sum(nil)
	}
	var out []byte
	for a := sum(seed); len(out) < size; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:size]
}

// seal12 makes a record (RFC 5288 section 3).
func (s sealer) seal12(kind byte, data []byte, sequence uint64) []byte {
	number := binary.BigEndian.AppendUint64(nil, sequence)
	header := []byte{kind, 3, 3, 0, byte(8 + len(data) + s.aead.Overhead())}
	aad := append(append([]byte{}, number...), kind, 3, 3, 0, byte(len(data)))
	return s.aead.Seal(append(header, number...), append(append([]byte{}, s.iv...), number...), data, aad)
}
