package msl

import (
	"cmp"
	"crypto/sha256"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/keycache"
)

// SessionKeys are the two keys of a session. Each message that uses them holds a
// reference, and releasing the last reference destroys the keys in their store.
type SessionKeys struct {
	Encryption keystore.Cipher
	Signature  keystore.MAC

	references keycache.Count
	raw        atomic.Pointer[RawKeys] // for a token in shared custody
}

// NewSessionKeys takes ownership of both keys, with one reference held.
func NewSessionKeys(encryption keystore.Cipher, signature keystore.MAC) *SessionKeys {
	k := &SessionKeys{Encryption: encryption, Signature: signature}
	k.references.Start()
	return k
}

// Acquire adds a reference. It fails once the last one was released.
func (k *SessionKeys) Acquire() bool { return k.references.Acquire() }

// Release drops a reference.
func (k *SessionKeys) Release() {
	if k == nil || !k.references.Drop() {
		return
	}
	k.Encryption.Close()
	k.Signature.Close()
	if raw := k.raw.Swap(nil); raw != nil {
		raw.Close()
	}
}

// GenerateSessionKeys makes a pair of session keys in store: AES-128 and
// HMAC-SHA256.
func GenerateSessionKeys(store keystore.Store) (*SessionKeys, error) {
	encryption, err := store.Generate(keystore.AES128CBC)
	if err != nil {
		return nil, err
	}
	signature, err := store.Generate(keystore.HMACSHA256)
	if err != nil {
		encryption.Close()
		return nil, err
	}
	return sessionKeys(encryption, signature)
}

// UnwrapSessionKeys makes a pair of session keys. It calls open with the
// algorithm and the wrapped bytes of each key.
func UnwrapSessionKeys(encryption, signature []byte, open func(a keystore.Algorithm, wrapped []byte) (keystore.Key, error)) (*SessionKeys, error) {
	e, err := open(keystore.AES128CBC, encryption)
	if err != nil {
		return nil, err
	}
	s, err := open(keystore.HMACSHA256, signature)
	return openedKeys(e, nil, s, err)
}

// OpenSessionKeys makes a pair of session keys from what a peer wrapped for by. The two
// are unwrapped concurrently if each takes long: in a device that is waited for, or with
// a key pair.
func OpenSessionKeys(by keystore.Unwrapper, encryption, signature []byte) (*SessionKeys, error) {
	var e, s keystore.Key
	var errE, errS error
	// RSA takes about a millisecond of processor time.
	both(isSlow(by) || !by.Algorithm().Secret(),
		func() { e, errE = by.Unwrap(keystore.AES128CBC, encryption) },
		func() { s, errS = by.Unwrap(keystore.HMACSHA256, signature) })
	return openedKeys(e, errE, s, errS)
}

// Wrap calls wrap with each of the keys, concurrently if they are in a device that is
// waited for, and returns both results.
func (k *SessionKeys) Wrap(wrap func(keystore.Key) ([]byte, error)) (encryption, signature []byte, err error) {
	var errE, errS error
	both(isSlow(k.Signature),
		func() { encryption, errE = wrap(k.Encryption) },
		func() { signature, errS = wrap(k.Signature) })
	if err = cmp.Or(errE, errS); err != nil {
		return nil, nil, err
	}
	return encryption, signature, nil
}

// openedKeys takes ownership of two keys, or closes the only one that was opened.
func openedKeys(encryption keystore.Key, errE error, signature keystore.Key, errS error) (*SessionKeys, error) {
	switch {
	case errE == nil && errS == nil:
		return sessionKeys(encryption, signature)
	case errE == nil:
		encryption.Close()
		return nil, errS
	case errS == nil:
		signature.Close()
	}
	return nil, errE
}

// sessionKeys takes ownership of two keys, and closes them if they lack a required
// operation.
func sessionKeys(encryption, signature keystore.Key) (*SessionKeys, error) {
	e, okE := encryption.(keystore.Cipher)
	s, okS := signature.(keystore.MAC)
	if !okE || !okS {
		encryption.Close()
		signature.Close()
		return nil, fail(ErrSessionKeyCreationFailure, "session keys", keystore.ErrWrongKey)
	}
	return NewSessionKeys(e, s), nil
}

// A Session is a master token that its issuer has verified and opened. It may be kept.
type Session struct {
	Token      *MasterToken // times and numbers
	Identity   string
	IssuerData []byte // the issuer's own object, or nil
	Keys       *SessionKeys

	opened        uint64 // when it was opened: [Server.Forget] ends earlier ones
	issuerVersion uint32 // of the issuer keys that made its token

	mu    sync.Mutex
	users map[tokenHash]knownUser // user ID tokens opened with it
}

// A tokenHash identifies a token by its signed bytes and its signature: tokens with the
// same ones get the same verdict.
type tokenHash = [sha256.Size]byte

// A knownUser is a user ID token opened before, without its bytes.
type knownUser struct {
	token UserIDToken
	user  string
}

// maxKnownUsers bounds the users that one session remembers.
const maxKnownUsers = 16

func (s *Session) knownUser(h tokenHash) (knownUser, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[h]
	return u, ok
}

func (s *Session) rememberUser(h tokenHash, u knownUser) {
	u.token.sealed, u.token.data = signedToken{}, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil || len(s.users) >= maxKnownUsers {
		s.users = make(map[tokenHash]knownUser, 1)
	}
	s.users[h] = u
}

// Acquire adds a reference to the session's keys. It fails once the last one was
// released.
func (s *Session) Acquire() bool { return s.Keys.Acquire() }

// Release drops the reference to the session's keys.
func (s *Session) Release() { s.Keys.Release() }

// key returns the key that protects the messages of the session.
func (s *Session) key() SymmetricKey { return sessionKey(s.Identity, s.Token, s.Keys) }

func sessionKey(identity string, t *MasterToken, keys *SessionKeys) SymmetricKey {
	return SymmetricKey{KeyID: keyID(identity, t.SequenceNumber), Encryption: keys.Encryption, MAC: keys.Signature}
}
