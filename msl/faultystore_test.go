package msl_test

import (
	"crypto"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A faultyStore is a store in memory whose operations fail as a test says. Every
// operation of a message has a number, from 0 on, and a name.
type faultyStore struct {
	*soft.Store
	latency time.Duration // of each operation of a cipher or MAC, which says so, and of sealing
	joint   bool          // a cipher and a MAC are used in one call

	mu    sync.Mutex
	trace []string
	fault func(n int, op string) error // nil lets everything work
}

func newFaultyStore(t testing.TB) *faultyStore { return &faultyStore{Store: newStore(t)} }

// watch starts counting from 0.
func (f *faultyStore) watch(fault func(n int, op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace, f.fault = nil, fault
}

func (f *faultyStore) operations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trace
}

func (f *faultyStore) step(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace = append(f.trace, op)
	if f.fault == nil {
		return nil
	}
	return f.fault(len(f.trace)-1, op)
}

// waited is a step that takes time.
func (f *faultyStore) waited(op string) error {
	err := f.step(op)
	time.Sleep(f.latency)
	return err
}

// watched wraps the key of a successful operation in one whose operations fail.
func (f *faultyStore) watched(k keystore.Key, err error) (keystore.Key, error) {
	if err != nil {
		return nil, err
	}
	base := faultyKey{k, f}
	switch k := k.(type) {
	case keystore.Cipher:
		return faultyCipher{base, k}, nil
	case keystore.MAC:
		return faultyMAC{base, k}, nil
	case keystore.DataWrapper:
		return faultyWrapper{base, k}, nil
	case interface {
		keystore.Key
		crypto.Signer
	}:
		return faultySigner{base, k}, nil
	}
	return k, nil
}

func inner(k keystore.Key) keystore.Key {
	if f, ok := k.(interface{ behind() keystore.Key }); ok {
		return f.behind()
	}
	return k
}

func (f *faultyStore) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	v, err := f.Store.Create(label, a)
	v.Key, err = f.watched(v.Key, err)
	return v, err
}

func (f *faultyStore) Lookup(label string) ([]keystore.Version, error) {
	list, err := f.Store.Lookup(label)
	for i := range list {
		list[i].Key, _ = f.watched(list[i].Key, nil)
	}
	return list, err
}

func (f *faultyStore) provisionPair(t testing.TB, label string, a keystore.Algorithm, pair crypto.Signer) keystore.Key {
	t.Helper()
	return must(f.watched(provisionPair(t, f.Store, label, a, pair), nil))
}

func (f *faultyStore) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if err := f.step("Generate"); err != nil {
		return nil, err
	}
	return f.watched(f.Store.Generate(a))
}

func (f *faultyStore) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if err := f.step("Import"); err != nil {
		return nil, err
	}
	return f.watched(f.Store.Import(a, raw))
}

func (f *faultyStore) Seal(k keystore.Key, context []byte) ([]byte, error) {
	if err := f.waited("Seal"); err != nil {
		return nil, err
	}
	return f.Store.Seal(inner(k), context)
}

// Unseal names what it opens, too.
func (f *faultyStore) Unseal(a keystore.Algorithm, blob, context []byte) (keystore.Key, error) {
	use, _, _ := strings.Cut(string(context), "\x00")
	if err := f.waited("Unseal " + use); err != nil {
		return nil, err
	}
	return f.watched(f.Store.Unseal(a, blob, context))
}

func (f *faultyStore) WrapFor(peer crypto.PublicKey, k keystore.Key) ([]byte, error) {
	if err := f.step("WrapFor"); err != nil {
		return nil, err
	}
	return f.Store.WrapFor(peer, inner(k))
}

type faultyKey struct {
	keystore.Key
	f *faultyStore
}

func (k faultyKey) behind() keystore.Key { return k.Key }

// Latency is what a device has that is waited for.
func (k faultyKey) Latency() time.Duration { return k.f.latency }

type faultyCipher struct {
	faultyKey
	cipher keystore.Cipher
}

func (k faultyCipher) Encrypt(iv, plaintext []byte) ([]byte, error) {
	if err := k.f.waited("Encrypt"); err != nil {
		return nil, err
	}
	return k.cipher.Encrypt(iv, plaintext)
}

func (k faultyCipher) Decrypt(iv, ciphertext []byte) ([]byte, error) {
	if err := k.f.waited("Decrypt"); err != nil {
		return nil, err
	}
	return k.cipher.Decrypt(iv, ciphertext)
}

type faultyMAC struct {
	faultyKey
	mac keystore.MAC
}

func (k faultyMAC) Sum(data []byte) ([]byte, error) {
	if err := k.f.waited("Sum"); err != nil {
		return nil, err
	}
	return k.mac.Sum(data)
}

type faultyWrapper struct {
	faultyKey
	wrapper keystore.DataWrapper
}

func (k faultyWrapper) Wrap(key keystore.Key) ([]byte, error) {
	if err := k.f.step("Wrap"); err != nil {
		return nil, err
	}
	return k.wrapper.Wrap(inner(key))
}

func (k faultyWrapper) WrapData(raw []byte) ([]byte, error) {
	if err := k.f.step("WrapData"); err != nil {
		return nil, err
	}
	return k.wrapper.WrapData(raw)
}

type faultySigner struct {
	faultyKey
	signer crypto.Signer
}

func (k faultySigner) Public() crypto.PublicKey { return k.signer.Public() }

func (k faultySigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if err := k.f.step("Sign"); err != nil {
		return nil, err
	}
	return k.signer.Sign(r, digest, o)
}
