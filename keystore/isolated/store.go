package isolated

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says how to start the process of a key store. The zero value of every field
// but Command has a default.
type Config struct {
	// Command makes the command of a child, which calls [Serve]. It is asked again for
	// each child. Its ExtraFiles are set by this package.
	Command func() *exec.Cmd
	// Settings are given to the child as they are; at most 1 MiB. They hold no secret.
	Settings []byte
	// PIN, if not nil, is what the child can read from the descriptor [PINFD]; at most
	// 4096 bytes. The store keeps it for the children that follow, and closes it.
	PIN *lockedmem.Buffer
	// ReadPIN, if not nil, reads the PIN again for each child but the first. After an error
	// the former one is used.
	ReadPIN func() (*lockedmem.Buffer, error)
	// Limit is how long one operation may take. Then it is given up, and the child is
	// replaced. Generating a key pair, and listing the keys of a token or looking one up, may take
	// twelve times as long. Making or destroying a provisioned key may take half a minute more, for which
	// it may wait for another program that does so. The default is 15 seconds.
	Limit time.Duration
	// Wait bounds the wait for a child that is being replaced, and for a free place
	// among the 64 calls that are under way at a time. The default is 5 seconds.
	Wait time.Duration
	// Memory is how many bytes a child may occupy (its resident set), on Linux. One that
	// occupies more is replaced. The default is 1 GiB; negative means no bound.
	Memory int64
	// Log receives an entry when the child is lost and when it is back, and what the
	// store logs in the child. Nil means no log.
	Log *slog.Logger
	// Calls, if not nil, is told of each operation of the device in the child, up to half a
	// second later.
	Calls func(keystore.Call)
}

func (c *Config) limit() time.Duration { return cmp.Or(max(c.Limit, 0), 15*time.Second) }

// patientLimit is that of what takes a device long, or many calls.
func (c *Config) patientLimit() time.Duration { return 12 * c.limit() }

// limitOf is the limit of an operation that concerns no key.
func (c *Config) limitOf(op operation) time.Duration {
	switch op {
	case opList, opLookup: // each version is tried
		return c.patientLimit()
	case opDestroy:
		return c.limit() + keystore.OthersWait
	}
	return c.limit()
}

// generateLimit is that of making a key.
func (c *Config) generateLimit(a keystore.Algorithm) time.Duration {
	if a.Secret() {
		return c.limit()
	}
	return c.patientLimit()
}

func (c *Config) wait() time.Duration { return cmp.Or(max(c.Wait, 0), 5*time.Second) }

// startLimit is how long a child may take to open its store.
func (c *Config) startLimit() time.Duration { return 2 * c.limit() }

func (c *Config) log() *slog.Logger { return cmp.Or(c.Log, slog.New(slog.DiscardHandler)) }

func (c *Config) check() error {
	switch {
	case c.Command == nil:
		return errors.New("isolated: there is no command for the process of the key store")
	case len(c.Settings) > maxSettings:
		return fmt.Errorf("isolated: settings of %d bytes: at most %d", len(c.Settings), maxSettings)
	case c.PIN.Len() > maxPIN:
		return keystore.NoPINf("isolated: a PIN of more than %d bytes", maxPIN)
	}
	return nil
}

// maxPIN fits into a pipe of any size (pipe(7), PIPE_BUF).
const maxPIN = 4096

// A Store is a key store in a process of its own. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper], [keystore.RandomSource], [keystore.Admin],
// [keystore.Changing] and [keystore.Resealer]. An operation that the store in the child
// lacks returns errors.ErrUnsupported.
type Store struct{ *supervisor }

var (
	_ keystore.Store        = (*Store)(nil)
	_ keystore.Importer     = (*Store)(nil)
	_ keystore.PeerWrapper  = (*Store)(nil)
	_ keystore.RandomSource = (*Store)(nil)
	_ keystore.Admin        = (*Store)(nil)
)

// Open starts the child, and returns when its store is open. The error of the store is
// the one that it had in the child, by its text and for errors.Is.
func Open(c Config) (*Store, error) {
	err := c.check()
	if err == nil {
		s := newSupervisor(c)
		if err = s.begin(); err == nil {
			return &Store{s}, nil
		}
	}
	c.PIN.Close()
	return nil, err
}

// Close closes the store in the child, and ends the child. The error is the one of the
// store.
func (s *Store) Close() error { return s.supervisor.end() }

// Live counts the session objects and sessions that the store in the child has.
func (s *Store) Live() (objects, sessions int) {
	s.ask(opLive, nil, func(f *fields) error {
		objects, sessions = int(f.number()), int(f.number())
		return nil
	})
	return objects, sessions
}

// ask makes a call that concerns no key.
func (s *Store) ask(op operation, write func(message) message, use func(*fields) error) error {
	if write == nil {
		write = func(m message) message { return m }
	}
	if use == nil {
		use = func(*fields) error { return nil }
	}
	return s.do(op, func(p *process) error { return p.call(s.config.limitOf(op), op, write, use) })
}

// newKey makes a key by a call whose answer tells it.
func (s *Store) newKey(op operation, limit time.Duration, write func(message) message) (k *key, err error) {
	err = s.do(op, func(p *process) error {
		return p.call(limit, op, write, func(f *fields) (err error) {
			k, err = s.take(p, f.key())
			return err
		})
	})
	return k, err
}

// take makes the parent's key of one in the child.
func (s *Store) take(p *process, form keyForm) (*key, error) {
	public, err := parsePublic(form.public)
	return &key{store: s, algorithm: form.algorithm, public: public, handle: form.handle, generation: p.generation}, err
}

// Generate makes a session key or key pair in the child.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	return typed(s.newKey(opGenerate, s.config.generateLimit(a), func(m message) message { return m.number(uint64(a)) }))
}

// Import makes a session key from bytes. The caller keeps raw and wipes it.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	return typed(s.newKey(opImport, s.config.limit(), func(m message) message { return m.number(uint64(a)).bytes(raw) }))
}

// Unseal makes a key from what Seal returned. In a new child it is unsealed again.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	k, err := s.newKey(opUnseal, s.config.limit(), func(m message) message {
		return m.number(uint64(a)).bytes(blob).bytes(context)
	})
	if err == nil {
		k.blob, k.context = append([]byte{}, blob...), append([]byte{}, context...)
	}
	return typed(k, err)
}

// Seal seals a key, which from then on is unsealed again in a new child.
func (s *Store) Seal(k keystore.Key, context []byte) (blob []byte, err error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	err = own.call(opSeal, func(m message) message { return m.bytes(context) }, func(f *fields) error {
		blob = append([]byte{}, f.bytes()...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.blob, own.context = append([]byte{}, blob...), append([]byte{}, context...)
	return blob, nil
}

// Lookup finds the versions of a provisioned key.
func (s *Store) Lookup(label string) (ring []keystore.Version, err error) {
	err = s.do(opLookup, func(p *process) error {
		ring = nil
		return s.lookup(p, label, func(k *key) {
			ring = append(ring, keystore.Version{Number: k.version, Key: k.typed()})
		})
	})
	if err != nil {
		return nil, err
	}
	return ring, nil
}

// lookup shows the versions of a provisioned key in one child.
func (s *Store) lookup(p *process, label string, show func(*key)) error {
	return p.call(s.config.limitOf(opLookup), opLookup, func(m message) message { return m.text(label) }, func(f *fields) error {
		for n := f.number(); n > 0 && !f.bad; n-- {
			k, err := s.version(p, label, f)
			if err != nil {
				return err
			}
			show(k)
		}
		return nil
	})
}

// version reads one version of a provisioned key.
func (s *Store) version(p *process, label string, f *fields) (*key, error) {
	number, form, mark := uint32(f.number()), f.key(), f.bytes()
	k, err := s.take(p, form)
	k.label, k.version, k.mark = label, number, append([]byte(nil), mark...)
	return k, err
}

// WrapFor wraps a key under the RSA key of a peer.
func (s *Store) WrapFor(peer crypto.PublicKey, k keystore.Key) (wrapped []byte, err error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	public, ok := peer.(*rsa.PublicKey)
	if !ok || public == nil {
		return nil, fmt.Errorf("isolated: wrap for a public key %T: %w", peer, errors.ErrUnsupported)
	}
	return own.bytes(opWrapFor, func(m message) message { return m.rsaPublic(public) })
}

// Random fills p with random bytes of the device.
func (s *Store) Random(p []byte) error {
	for len(p) > 0 {
		piece := p[:min(len(p), maxRandom)]
		err := s.ask(opRandom, func(m message) message { return m.number(uint64(len(piece))) }, func(f *fields) error {
			if got := f.bytes(); copy(piece, got) != len(piece) {
				return fmt.Errorf("isolated: %d random bytes instead of %d: %w", len(got), len(piece), keystore.ErrUnavailable)
			}
			return nil
		})
		if err != nil {
			return err
		}
		p = p[len(piece):]
	}
	return nil
}

// Create makes the next version of a provisioned key.
func (s *Store) Create(label string, a keystore.Algorithm) (v keystore.Version, err error) {
	limit := s.config.generateLimit(a) + keystore.OthersWait
	err = s.do(opCreate, func(p *process) error {
		return p.call(limit, opCreate, func(m message) message { return m.text(label).number(uint64(a)) }, func(f *fields) error {
			k, err := s.version(p, label, f)
			v = keystore.Version{Number: k.version, Key: k.typed()}
			return err
		})
	})
	if err != nil {
		return keystore.Version{}, err
	}
	return v, nil
}

// List describes the provisioned keys.
func (s *Store) List() (all []keystore.Info, err error) {
	err = s.ask(opList, nil, func(f *fields) (err error) {
		all, err = decodeList(f.bytes())
		return err
	})
	return all, err
}

// Destroy removes one version of a provisioned key, or all.
func (s *Store) Destroy(label string, version uint32) error {
	return s.ask(opDestroy, func(m message) message { return m.text(label).number(uint64(version)) }, nil)
}
