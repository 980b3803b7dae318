package tpm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A session is an HMAC session salted with a storage key, so that only the TPM that holds
// its private half knows the session key (TPM 2.0 Library, Part 1, clause 17.6). It
// authorizes commands, so that no one on the bus can change a command or a response, and
// encrypts their first parameters if these are secret (clause 19).
type session struct {
	handle uint32
	salt   *object // the storage key it was started with
	key    *lockedmem.Buffer
	nonce  []byte // the TPM's last one
}

const (
	sessionHash  = sha256.Size
	attrContinue = 1 << 0
	attrDecrypt  = 1 << 5 // the first parameter of the command is encrypted
	attrEncrypt  = 1 << 6 // the first parameter of the response is encrypted
	passwordAuth = 0x40000009
	handleNull   = 0x40000007
)

// session returns a running session, or starts one.
func (x *executor) session(salt *object) (*session, error) {
	if s := x.resources.running(salt); s != nil {
		return s, nil
	}
	if err := x.load(salt); err != nil {
		return nil, err
	}
	s, err := x.startSession(salt)
	if err != nil {
		return nil, err
	}
	x.resources.keepSession(s)
	// The first command proves that the TPM knows the salt while nothing is at
	// stake: later a wrong session would count as a wrong PIN.
	if _, err := x.run(command{code: ccGetRandom, params: []byte{0, 16}, session: s, secretOut: true}); err != nil {
		x.resources.dropSession(s)
		return nil, unproven(err)
	}
	return s, nil
}

// unproven distinguishes a TPM that does not know the salt from one that did not answer,
// or that returned another error.
func unproven(err error) error {
	var said *Error
	var broken *linkError
	if errors.As(err, &broken) || errors.As(err, &said) && !said.is(tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) {
		return err
	}
	return fmt.Errorf("tpm: the TPM does not hold the storage key of the state file, or something else answers in its place: %w", err)
}

// startSession is TPM2_StartAuthSession (TPM 2.0 Library, Part 3, clause 11.1).
func (x *executor) startSession(salt *object) (*session, error) {
	secret, encrypted, err := newSalt(salt.public)
	if err != nil {
		return nil, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	defer clear(secret)
	caller := make([]byte, sessionHash)
	rand.Read(caller) // never fails
	params := append16(append16(nil, caller), encrypted)
	params = append(params, 0) // TPM_SE_HMAC
	params = binary.BigEndian.AppendUint16(params, uint16(tpm2.TPMAlgAES))
	params = binary.BigEndian.AppendUint16(params, 128)
	params = binary.BigEndian.AppendUint16(params, uint16(tpm2.TPMAlgCFB))
	params = binary.BigEndian.AppendUint16(params, uint16(tpm2.TPMAlgSHA256))
	r, err := x.run(command{code: ccStartAuthSession, handles: []entity{salt.entity(), {handle: handleNull}}, params: params, makes: true})
	if err != nil {
		return nil, err
	}
	nonce, rest, ok := cut16(r.params)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("tpm: TPM2_StartAuthSession: %w", errAnswer())
	}
	s := &session{handle: r.handle, salt: salt, nonce: slices.Clone(nonce)}
	s.key = lockedmem.Move(kdfa(secret, "ATH", s.nonce, caller))
	return s, nil
}

// newSalt makes a salt, and encrypts it for a storage key (TPMT_PUBLIC).
func newSalt(storageKey []byte) (secret, encrypted []byte, err error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](storageKey)
	if err != nil {
		return nil, nil, err
	}
	peer, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, nil, err
	}
	return tpm2.CreateEncryptedSalt(rand.Reader, peer)
}

// end erases the secrets of a session.
func (s *session) end() {
	s.key.Close()
	s.handle = 0
}

// kdfa is KDFa with SHA-256 for 256 bits (Part 1, clause 9.4.10.2).
func kdfa(key []byte, label string, u, v []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte{0, 0, 0, 1})
	h.Write([]byte(label))
	h.Write([]byte{0})
	h.Write(u)
	h.Write(v)
	h.Write([]byte{0, 0, 1, 0})
	return h.Sum(nil)
}

// mac is the HMAC of a command or a response (clause 17.6.5) whose parameters are hashed
// in h, with the key from authKey. Package hmac leaves copies of the key on the heap
// until they are collected.
func (s *session) mac(key []byte, h hash.Hash, newer, older []byte, attributes byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(h.Sum(nil))
	m.Write(newer)
	m.Write(older)
	m.Write([]byte{attributes})
	return m.Sum(nil)
}

// crypt encrypts or decrypts a first parameter, a TPM2B without its size, with
// AES-128 in CFB mode (clause 19.3).
func crypt(key, newer, older, data []byte, decrypt bool) {
	k := kdfa(key, "CFB", newer, older)
	defer clear(k)
	block, err := aes.NewCipher(k[:16])
	if err != nil {
		return // 16 bytes are always a valid key
	}
	cfb(block, k[16:], data, decrypt)
}

// cfb is AES-CFB, which crypto/cipher deprecates and refuses in FIPS mode.
func cfb(block cipher.Block, iv, data []byte, decrypt bool) {
	var pad, next [aes.BlockSize]byte
	copy(next[:], iv)
	for len(data) > 0 {
		block.Encrypt(pad[:], next[:])
		n := min(len(data), aes.BlockSize)
		if decrypt {
			copy(next[:], data[:n])
		}
		subtle.XORBytes(data[:n], data[:n], pad[:n])
		if !decrypt {
			copy(next[:], data[:n])
		}
		data = data[n:]
	}
}
