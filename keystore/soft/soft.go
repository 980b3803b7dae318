package soft

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Store keeps keys in memory and, where a file belongs to it, provisioned keys in that
// file. It is a [keystore.Store], [keystore.Importer], [keystore.PeerWrapper],
// [keystore.Admin], [keystore.Changing] and [keystore.Resealer], and safe for concurrent
// use.
type Store struct {
	admin sync.Mutex // held through a change of the rings, and its writing

	mu     sync.RWMutex // guards what follows
	closed bool
	live   map[*key]struct{}   // session keys that were not closed yet
	rings  map[string][]record // provisioned keys by label, newest first
	chosen map[string]uint32   // versions that seal; zero or none means the newest

	prefix string                   // of the labels of the sealing keys
	random io.Reader                // of secret keys
	others func(keystore.Key) error // what is wrong with a key of another store, or nil
	file   *file                    // nil: the rings are in memory only
}

var (
	_ keystore.Store       = (*Store)(nil)
	_ keystore.Importer    = (*Store)(nil)
	_ keystore.PeerWrapper = (*Store)(nil)
	_ keystore.Admin       = (*Store)(nil)
	_ keystore.Changing    = (*Store)(nil)
)

// Provider says where the keys of a Store are: in the memory of the process.
func Provider() keystore.Provider { return keystore.Provider{Name: "soft", InProcess: true} }

// A Config says how a store names its own keys. The zero value is that of New,
// Create and Open.
type Config struct {
	// SealPrefix is the first part of the labels of the sealing keys, see
	// [keystore.SealingRoles]. The default is [keystore.DefaultPrefix].
	SealPrefix string
	// Rand is the source of the secret keys that Generate and Create make; nil means
	// crypto/rand. RSA and EC keys, and the sealing keys of a new store, have
	// crypto/rand only: since Go 1.24 crypto/rsa and crypto/ecdsa ignore another
	// source.
	Rand io.Reader
	// Cost is of the files that Create makes, and those that Open opens are written with
	// it when their keys change next. Zero means the second recommended option of RFC 9106
	// (three times 64 MiB), and for Open that of the file. In the FIPS mode of Go
	// (crypto/fips140) a cost of Argon2id means 600,000 iterations of PBKDF2 with
	// HMAC-SHA256, and the cipher is AES-256-GCM in place of XChaCha20-Poly1305.
	Cost Cost
	// Others says what is wrong with a key that is not of the store, where another one
	// uses it for a part of its keys. Nil means [keystore.ErrWrongKey].
	Others func(keystore.Key) error
	// CheapForTests permits files whose passphrases are guessed easily. Without it they
	// are not opened: such a file cannot be used by accident.
	CheapForTests bool
}

// New makes an empty store with fresh sealing keys. Keys that it seals cannot be
// unsealed after Close.
func New() *Store { return Config{}.New() }

// New is the function New with the names of c.
func (c Config) New() *Store {
	prefix := c.prefix()
	return &Store{live: map[*key]struct{}{}, rings: sealingRings(prefix), prefix: prefix, random: c.random(), others: c.Others}
}

func (c Config) random() io.Reader {
	if c.Rand == nil {
		return rand.Reader
	}
	return c.Rand
}

func (c Config) prefix() string { return cmp.Or(c.SealPrefix, keystore.DefaultPrefix) }

// Generate makes a session key or a session key pair.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if a.Sealing() {
		return nil, fmt.Errorf("soft: generate %v: only an Admin can make sealing keys: %w", a, errors.ErrUnsupported)
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	m, err := generate(s.random, a)
	if err != nil {
		return nil, err
	}
	return s.adopt(a, m, false)
}

// Import makes a session key from the given bytes. The caller keeps raw and wipes it.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if !a.Secret() || a.Sealing() {
		return nil, fmt.Errorf("soft: import %v: %w", a, errors.ErrUnsupported)
	}
	m, err := secret(a, raw)
	if err != nil {
		return nil, err
	}
	return s.adopt(a, m, false)
}

// Lookup finds every version of a provisioned key, newest first.
func (s *Store) Lookup(label string) ([]keystore.Version, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errStoreClosed()
	}
	ring := s.rings[label]
	if len(ring) == 0 {
		return nil, fmt.Errorf("soft: look up %q: %w", label, keystore.ErrNotFound)
	}
	versions := make([]keystore.Version, len(ring))
	for i, r := range ring {
		versions[i] = r.version(s)
	}
	return versions, nil
}

// Close closes every key of the store and overwrites their bytes.
func (s *Store) Close() error {
	s.admin.Lock()
	defer s.admin.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for k := range s.live {
		k.closed.Store(true)
		k.m.wipe()
	}
	clear(s.live)
	for _, ring := range s.rings {
		for _, r := range ring {
			r.m.wipe()
		}
	}
	clear(s.rings)
	s.file.wipe()
	return nil
}

// Live counts the session keys that were not closed yet. The second number,
// device sessions in use, is always 0.
func (s *Store) Live() (objects, sessions int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.live), 0
}

func (s *Store) open() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errStoreClosed()
	}
	return nil
}

// adopt makes m a session key of the store, or wipes it.
func (s *Store) adopt(a keystore.Algorithm, m *material, locked bool) (keystore.Key, error) {
	k := &key{store: s, algorithm: a, m: m, locked: locked}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		m.wipe()
		return nil, errStoreClosed()
	}
	s.live[k] = struct{}{}
	return k.typed(), nil
}

func (s *Store) forget(k *key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, k)
}

func errStoreClosed() error { return fmt.Errorf("soft: store: %w", keystore.ErrClosed) }

func generate(random io.Reader, a keystore.Algorithm) (*material, error) {
	if a.Secret() {
		raw := make([]byte, a.Size())
		defer clear(raw)
		if _, err := io.ReadFull(random, raw); err != nil {
			return nil, fmt.Errorf("soft: generate %v: %w", a, err)
		}
		return secret(a, raw)
	}
	signer, err := generatePair(a)
	if err != nil {
		return nil, fmt.Errorf("soft: generate %v: %w", a, err)
	}
	return pair(a, signer)
}

func generatePair(a keystore.Algorithm) (crypto.Signer, error) {
	switch a {
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096,
		keystore.RSAUnwrap2048, keystore.RSAUnwrap3072, keystore.RSAUnwrap4096,
		keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096,
		keystore.RSAPSS2048, keystore.RSAPSS3072, keystore.RSAPSS4096:
		return rsa.GenerateKey(rand.Reader, a.Size())
	case keystore.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keystore.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, errors.ErrUnsupported
}
