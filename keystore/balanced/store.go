package balanced

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says which tokens hold the keys. The zero value of every field except Tokens
// means its default.
type Config struct {
	// Tokens are at least one, of different names.
	Tokens []Token
	// Prefix is the first part of the labels of the sealing keys, see
	// [keystore.SealingRoles]. The default is [keystore.DefaultPrefix].
	Prefix string
	// Limit is how long an operation may take on one token before it is done on another.
	// Generating a key pair, and listing or looking up keys, may take twelve times as long;
	// destroying a provisioned key [keystore.OthersWait] more. The default is 10 seconds;
	// negative means that the stores bound their operations themselves.
	Limit time.Duration
	// Log is told when a token is lost and when it is back, and which versions of keys
	// are not on all tokens. Nil means no log.
	Log *slog.Logger
}

// A Token is one of the places of the keys.
type Token struct {
	Name string // for errors and logs
	// Open opens its store. It is called again after it failed, except with
	// [keystore.ErrPIN].
	Open func() (keystore.Store, error)
}

const defaultLimit = 10 * time.Second

// A Store is a key store over several tokens. It is a [keystore.Store],
// [keystore.Importer], [keystore.PeerWrapper], [keystore.RandomSource],
// [keystore.Changing], [keystore.Resealer] and [keystore.Admin]. Operations that the stores
// of the tokens lack return errors.ErrUnsupported.
type Store struct {
	*tokens
	rings // the provisioned keys

	closing sync.Once
}

// Tokens are the places of the keys, and what is known of them.
type tokens struct {
	limit  time.Duration
	log    *slog.Logger
	places []*place
	proof  *proof
	turn   atomic.Uint32 // the place to look at first
	done   chan struct{} // closed by Close
}

var (
	_ keystore.Store        = (*Store)(nil)
	_ keystore.Importer     = (*Store)(nil)
	_ keystore.PeerWrapper  = (*Store)(nil)
	_ keystore.RandomSource = (*Store)(nil)
	_ keystore.Changing     = (*Store)(nil)
	_ keystore.Admin        = (*Store)(nil)
)

// Open opens the tokens, and proves that they hold the same sealing keys; other keys are
// proven when they are looked up. A token that cannot be opened is left out until it can,
// as long as there is another. Tokens with other keys are [ErrDifferent].
func Open(c Config) (*Store, error) {
	all := &tokens{
		limit: cmp.Or(c.Limit, defaultLimit), log: cmp.Or(c.Log, slog.New(slog.DiscardHandler)),
		proof: newProof(cmp.Or(c.Prefix, keystore.DefaultPrefix)), done: make(chan struct{}),
	}
	s := &Store{tokens: all, rings: rings{tokens: all, known: map[string]lookedUp{}}}
	for _, t := range c.Tokens {
		s.places = append(s.places, newPlace(t))
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// begin opens the tokens one after the other, so that the first one is what the others
// are compared with, and begins to attend to them.
func (s *Store) begin() error {
	var failed []error
	for _, p := range s.places {
		err := s.examine(p, s.most(keystore.RSASign4096))
		p.judge(err)
		if errors.Is(err, ErrDifferent) {
			return err // which names the tokens
		}
		if errors.Is(err, keystore.ErrPIN) {
			return named(p, err)
		}
		if err != nil {
			failed = append(failed, named(p, err))
			p.lost.Failed(err, func() { s.log.Error("token lost", "token", p.name, "error", err) })
		}
	}
	for _, p := range s.places {
		go s.attend(p)
	}
	if len(failed) == len(s.places) {
		return errors.Join(failed...)
	}
	return nil
}

func (s *tokens) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Close closes the stores of all tokens. It waits for a hung one no longer than the
// limit.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.done)
		var errs []error
		for _, p := range s.places {
			p.lost.Stop()
			store := p.opened()
			if store == nil {
				continue
			}
			_, e := bounded(p, s.limit, func() (none, error) { return none{}, store.Close() })
			errs = append(errs, named(p, e))
		}
		err = errors.Join(errs...)
	})
	return err
}

// Live counts the session objects and the sessions in use of all tokens.
func (s *tokens) Live() (objects, sessions int) {
	for _, p := range s.places {
		if l, ok := p.opened().(interface {
			Live() (objects, sessions int)
		}); ok {
			o, n := l.Live()
			objects, sessions = objects+o, sessions+n
		}
	}
	return objects, sessions
}

// A Condition is how a token is at one moment.
type Condition struct {
	Name   string
	Usable bool
	Queue  int   // operations under way there
	Why    error // it is not usable
}

// Conditions returns the condition of each token.
func (s *tokens) Conditions() (all []Condition) {
	for _, p := range s.places {
		state, why := p.look()
		all = append(all, Condition{Name: p.name, Usable: state == fit, Queue: int(p.busy.Load()), Why: why})
	}
	return all
}

// Each calls f with the store of every token that was opened.
func (s *tokens) Each(f func(name string, store keystore.Store)) {
	for _, p := range s.places {
		if store := p.opened(); store != nil {
			f(p.name, store)
		}
	}
}

// Generate makes a session key or key pair on one of the tokens.
func (s *Store) Generate(a keystore.Algorithm) (keystore.Key, error) {
	return s.born(a, func(p *place) (keystore.Key, error) { return p.opened().Generate(a) })
}

// Import makes a session key from bytes on one of the tokens. The caller keeps raw and
// wipes it.
func (s *Store) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	return s.born(a, func(p *place) (keystore.Key, error) {
		store, err := as[keystore.Importer](p)
		if err != nil {
			return nil, err
		}
		own := bytes.Clone(raw) // the caller wipes raw, when a call may still be under way
		defer clear(own)
		return store.Import(a, own)
	})
}

// Unseal makes a key, on one of the tokens, from what Seal returned.
func (s *Store) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	k, err := s.born(a, func(p *place) (keystore.Key, error) { return p.opened().Unseal(a, blob, context) })
	if err != nil {
		return nil, err
	}
	k.(interface{ own() *key }).own().remember(blob, context)
	return k, nil
}

// born makes a session key.
func (s *Store) born(a keystore.Algorithm, op func(*place) (keystore.Key, error)) (keystore.Key, error) {
	return use(s.tokens, s.most(a), nil, func(p *place, _ []keystore.Key) (keystore.Key, error) {
		inner, err := op(p)
		if err != nil {
			return nil, err
		}
		return s.adopt(p, inner).typed(), nil
	})
}

// Seal seals a key on its token. From then on other tokens can have it.
func (s *Store) Seal(k keystore.Key, context []byte) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	blob, err := use(s.tokens, s.limit, []*key{own}, func(p *place, on []keystore.Key) ([]byte, error) { return p.opened().Seal(on[0], context) })
	if err != nil {
		return nil, err
	}
	own.remember(blob, context)
	return blob, nil
}

// WrapFor wraps a key under the public key of a peer.
func (s *tokens) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	own, err := s.own(k)
	if err != nil {
		return nil, err
	}
	return use(s, s.limit, []*key{own}, func(p *place, on []keystore.Key) ([]byte, error) {
		store, err := as[keystore.PeerWrapper](p)
		if err != nil {
			return nil, err
		}
		return store.WrapFor(peer, on[0])
	})
}

// Random fills b with random bytes of one of the tokens.
func (s *Store) Random(b []byte) error {
	got, err := use(s.tokens, s.limit, nil, func(p *place, _ []keystore.Key) ([]byte, error) {
		store, err := as[keystore.RandomSource](p)
		if err != nil {
			return nil, err
		}
		fresh := make([]byte, len(b)) // a call that was given up must not write into b
		return fresh, store.Random(fresh)
	})
	copy(b, got)
	clear(got)
	return err
}

// as returns the store of a token as the interface K.
func as[K any](p *place) (K, error) {
	store, ok := p.opened().(K)
	if !ok {
		return store, fmt.Errorf("balanced: the key store %s cannot do that: %w", p.name, errors.ErrUnsupported)
	}
	return store, nil
}

// most is how long an operation may take that makes a key of algorithm a.
func (s *tokens) most(a keystore.Algorithm) time.Duration {
	if a.Secret() {
		return s.limit
	}
	return 12 * s.limit
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
