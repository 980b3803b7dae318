package msl_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A pairedKey does nothing before two operations are under way, if it has partners.
type pairedKey struct {
	keystore.Cipher
	keystore.MAC
	algorithm keystore.Algorithm
	latency   time.Duration
	partners  *sync.WaitGroup
	fails     map[keystore.Algorithm]error
	closed    *int
}

func (k pairedKey) Algorithm() keystore.Algorithm { return k.algorithm }
func (k pairedKey) Latency() time.Duration        { return k.latency }
func (k pairedKey) Close() error                  { *k.closed++; return nil }

func (k pairedKey) meet() {
	if k.partners != nil {
		k.partners.Done()
		k.partners.Wait()
	}
}

func (k pairedKey) Unwrap(a keystore.Algorithm, _ []byte) (keystore.Key, error) {
	k.meet()
	if err := k.fails[a]; err != nil {
		return nil, err
	}
	k.algorithm = a
	return k, nil
}

// two is what operations wait for that are to be done at the same time.
func two() *sync.WaitGroup {
	var partners sync.WaitGroup
	partners.Add(2)
	return &partners
}

func TestSessionKeysAtTheSameTime(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	for name, c := range map[string]struct {
		algorithm keystore.Algorithm
		latency   time.Duration
		partners  *sync.WaitGroup
		fails     map[keystore.Algorithm]error
		want      error
		closed    int
	}{
		"a fast key":        {algorithm: keystore.AESUnwrap128},
		"a slow device":     {algorithm: keystore.AESUnwrap128, latency: time.Millisecond, partners: two()},
		"a pair":            {algorithm: keystore.RSAUnwrap2048, partners: two()},
		"the first fails":   {algorithm: keystore.RSAUnwrap2048, partners: two(), fails: map[keystore.Algorithm]error{keystore.AES128CBC: first}, want: first, closed: 1},
		"the second fails":  {algorithm: keystore.RSAUnwrap2048, partners: two(), fails: map[keystore.Algorithm]error{keystore.HMACSHA256: second}, want: second, closed: 1},
		"both of them fail": {algorithm: keystore.RSAUnwrap2048, partners: two(), fails: map[keystore.Algorithm]error{keystore.AES128CBC: first, keystore.HMACSHA256: second}, want: first},
	} {
		t.Run(name, func(t *testing.T) {
			closed := 0
			k := pairedKey{algorithm: c.algorithm, latency: c.latency, partners: c.partners, fails: c.fails, closed: &closed}
			keys, err := msl.OpenSessionKeys(k, nil, nil)
			if err != c.want || (keys == nil) != (err != nil) {
				t.Fatalf("keys %v, error %v, want %v", keys != nil, err, c.want)
			}
			if closed != c.closed {
				t.Errorf("%d keys were closed, want %d", closed, c.closed)
			}
		})
	}
}

func TestSessionKeysWrapped(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		latency  time.Duration
		partners *sync.WaitGroup
		fails    keystore.Algorithm
	}{
		"fast":             {},
		"slow":             {latency: time.Millisecond, partners: two()},
		"the first fails":  {latency: time.Millisecond, partners: two(), fails: keystore.AES128CBC},
		"the second fails": {latency: time.Millisecond, partners: two(), fails: keystore.HMACSHA256},
	} {
		t.Run(name, func(t *testing.T) {
			k := pairedKey{latency: c.latency, partners: c.partners, closed: new(int)}
			e, s := k, k
			e.algorithm, s.algorithm = keystore.AES128CBC, keystore.HMACSHA256
			encryption, signature, err := msl.NewSessionKeys(e, s).Wrap(func(k keystore.Key) ([]byte, error) {
				k.(pairedKey).meet()
				if k.Algorithm() == c.fails {
					return nil, refused
				}
				return []byte(k.Algorithm().String()), nil
			})
			if c.fails != 0 {
				if err != refused || encryption != nil || signature != nil {
					t.Errorf("%q, %q, %v", encryption, signature, err)
				}
				return
			}
			if err != nil || string(encryption) != keystore.AES128CBC.String() || string(signature) != keystore.HMACSHA256.String() {
				t.Errorf("%q, %q, %v", encryption, signature, err)
			}
		})
	}
}
