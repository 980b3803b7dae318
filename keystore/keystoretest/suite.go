package keystoretest

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A Leaker is a store that counts what it holds in its device. TestStore calls
// Live only when no operation is under way, before and after each subtest, and
// after Close, where both numbers must be 0.
type Leaker interface {
	// Live counts the keys that Generate, Import, Unwrap and Unseal made and
	// that were not closed (in the device, if it can be asked: one for a
	// secret key, one or two for a pair, always the same), and the device
	// sessions that are taken by an operation. Idle sessions that the store
	// keeps for later do not count.
	Live() (objects, sessions int)
}

// TestStore runs the suite on the stores that open returns, which must have their
// sealing keys. t is a *testing.T, or another [Runner]. open is called several times, and
// several stores are open at a time. They may be on the same device and share its
// provisioned keys. The suite closes the stores; open has to clean up everything below
// them. The suite makes provisioned keys under labels that start with [Prefix], and
// destroys them.
//
// An algorithm that a store declines with errors.ErrUnsupported is skipped,
// unless it is one of required.
func TestStore[X Runner[X]](t X, open func(t X) keystore.Store, required ...keystore.Algorithm) {
	run(tester[X]{t, t}, func(t T) keystore.Store { return open(t.(tester[X]).own) }, required)
}

func run(t T, open func(t T) keystore.Store, required []keystore.Algorithm) {
	peer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{open: open, store: open(t), other: soft.New(), peer: peer, required: required, pairs: map[keystore.Algorithm]sharedPair{}}
	defer s.other.Close()
	defer s.store.Close()

	s.run(t, "interfaces", operations{s}.testInterfaces)
	s.run(t, "cipher", operations{s}.testCiphers)
	s.run(t, "mac", operations{s}.testMACs)
	s.run(t, "sign", operations{s}.testSigners)
	s.run(t, "wrap", wrapping{s}.testWrap)
	s.run(t, "unwrap", wrapping{s}.testUnwrap)
	s.run(t, "oaep", wrapping{s}.testOAEP)
	s.run(t, "reveal", revealing{s}.testReveal)
	s.run(t, "wrap-data", revealing{s}.testWrapData)
	s.run(t, "decrypt", revealing{s}.testDecrypt)
	s.run(t, "seal", sealing{s}.testSeal)
	s.run(t, "seal-forged", sealing{s}.testSealForged)
	s.run(t, "seal-refused", sealing{s}.testSealRefused)
	s.run(t, "provisioned", provisioning{s}.testProvisioned)
	s.run(t, "random", operations{s}.testRandom)
	s.run(t, "vectors", s.testVectors)
	s.run(t, "unsupported", misuse{s}.testUnsupported)
	s.run(t, "closed", misuse{s}.testClosed)
	s.run(t, "foreign", misuse{s}.testForeign)
	s.run(t, "concurrent", concurrency{s}.testConcurrent)
	t.Run("close", misuse{s}.testStoreClose)
}

// A suite is one run of TestStore: the stores, and how keys are made in them. The
// tests of each subject are methods of a type that embeds it.
type suite struct {
	open     func(t T) keystore.Store
	store    keystore.Store  // under test
	other    *soft.Store     // another store, and the software peer
	peer     *rsa.PrivateKey // of a peer that sees what is wrapped for it
	required []keystore.Algorithm
	pairs    map[keystore.Algorithm]sharedPair // that subtests share
	shared   int                               // objects of pairs
}

// A sharedPair is a key pair, and how many objects it is.
type sharedPair struct {
	key     keystore.Key
	objects int
}

// run runs a subtest after which the store must hold what it held before, and pairs.
func (s *suite) run(t T, name string, test func(t T)) {
	t.Run(name, func(t T) {
		leaker, ok := s.store.(Leaker)
		if !ok {
			t.Log("the store is not a Leaker: leaks are not detected")
			test(t)
			return
		}
		objects, sessions := leaker.Live()
		objects -= s.shared
		// Registered first, so it runs after the clean-up of the test.
		t.Cleanup(func() {
			o, n := leaker.Live()
			o -= s.shared
			if o != objects || n != sessions {
				t.Errorf("leak: %d objects and %d sessions before, %d and %d after", objects, sessions, o, n)
			}
		})
		test(t)
	})
}

// generate makes a session key that goes with the test.
func (s *suite) generate(t T, a keystore.Algorithm) keystore.Key {
	t.Helper()
	k, err := s.store.Generate(a)
	return s.keep(t, a, k, err)
}

// pair is generate for a test that does not close the key. A pair is made once, as devices
// take long for one.
func (s *suite) pair(t T, a keystore.Algorithm) keystore.Key {
	t.Helper()
	if a.Secret() {
		return s.generate(t, a)
	}
	if _, made := s.pairs[a]; !made {
		before := s.objects()
		k, err := s.store.Generate(a)
		s.made(t, a, k, err)
		p := sharedPair{k, s.objects() - before}
		s.pairs[a] = p
		s.shared += p.objects
	}
	return s.pairs[a].key
}

// lastPair is pair for the last test of it, which closes the key.
func (s *suite) lastPair(t T, a keystore.Algorithm) keystore.Key {
	t.Helper()
	k := s.pair(t, a)
	s.shared -= s.pairs[a].objects
	delete(s.pairs, a)
	return k
}

// objects counts what the store holds, if it does itself.
func (s *suite) objects() int {
	if leaker, ok := s.store.(Leaker); ok {
		n, _ := leaker.Live()
		return n
	}
	return 0
}

// give imports a session key that goes with the test.
func (s *suite) give(t T, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	k, err := s.importer(t).Import(a, raw)
	return s.keep(t, a, k, err)
}

func (s *suite) keep(t T, a keystore.Algorithm, k keystore.Key, err error) keystore.Key {
	t.Helper()
	s.made(t, a, k, err)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("close %v: %v", a, err)
		}
	})
	return k
}

// made skips the test if the store declines a key, and ends it if it fails to make it.
func (s *suite) made(t T, a keystore.Algorithm, k keystore.Key, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) && !slices.Contains(s.required, a) {
		t.Skipf("%v: %v", a, err)
	}
	if err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	if k.Algorithm() != a {
		k.Close()
		t.Fatalf("asked for %v, got %v", a, k.Algorithm())
	}
}

func (s *suite) importer(t T) keystore.Importer {
	t.Helper()
	i, ok := s.store.(keystore.Importer)
	if !ok {
		t.Skip("the store is not an Importer")
	}
	return i
}

func (s *suite) peerWrapper(t T) keystore.PeerWrapper {
	t.Helper()
	p, ok := s.store.(keystore.PeerWrapper)
	if !ok {
		t.Skip("the store is not a PeerWrapper")
	}
	return p
}

// softKey makes the software peer's key of given bytes.
func (s *suite) softKey(t T, a keystore.Algorithm, raw []byte) keystore.Key {
	t.Helper()
	k, err := s.other.Import(a, raw)
	if err != nil {
		t.Fatalf("soft: %v: %v", a, err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// seal seals k, and skips what the store declines.
func (s *suite) seal(t T, k keystore.Key, context []byte) []byte {
	t.Helper()
	blob, err := s.store.Seal(k, context)
	if errors.Is(err, errors.ErrUnsupported) && !slices.Contains(s.required, k.Algorithm()) {
		t.Skipf("%v: %v", k.Algorithm(), err)
	}
	if err != nil {
		t.Fatalf("seal %v: %v", k.Algorithm(), err)
	}
	return blob
}

// unseal unseals a key that goes with the test.
func (s *suite) unseal(t T, a keystore.Algorithm, blob, context []byte) keystore.Key {
	t.Helper()
	k, err := s.store.Unseal(a, blob, context)
	if err != nil {
		t.Fatalf("unseal %v: %v", a, err)
	}
	return s.keep(t, a, k, nil)
}

// movable lists the algorithms whose keys are wrapped and sealed.
func movable() []keystore.Algorithm {
	return []keystore.Algorithm{
		keystore.AES128CBC, keystore.AES256CBC, keystore.HMACSHA256,
		keystore.AESCMAC128, keystore.AESWrap128, keystore.HMACSHA256Block,
	}
}

// fingerprint is what a key computes from fixed input: equal for equal keys.
// store is the one that k is of.
func fingerprint(t T, store keystore.Store, k keystore.Key) string {
	t.Helper()
	var out []byte
	var err error
	switch k := k.(type) {
	case keystore.Cipher:
		out, err = k.Encrypt(make([]byte, 16), []byte("what is encrypted the same way is the same key"))
	case keystore.MAC:
		out, err = k.Sum([]byte("what has the same tag is the same key"))
	case keystore.Wrapper:
		i, ok := store.(keystore.Importer)
		if !ok {
			t.Skip("the store is not an Importer")
		}
		fixed, e := i.Import(keystore.HMACSHA256, make([]byte, 32))
		if e != nil {
			t.Fatal(e)
		}
		defer fixed.Close()
		out, err = k.Wrap(fixed)
	default:
		t.Fatalf("%v: %T has no fingerprint", k.Algorithm(), k)
	}
	if err != nil {
		t.Fatalf("fingerprint of %v: %v", k.Algorithm(), err)
	}
	if len(out) == 0 {
		t.Fatalf("fingerprint of %v is empty", k.Algorithm())
	}
	return string(out)
}

// is fails the test unless err is want.
func is(t T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// each runs test for every algorithm, as a subtest that can be skipped separately.
func each(t T, all []keystore.Algorithm, test func(t T, a keystore.Algorithm)) {
	t.Helper()
	for _, a := range all {
		t.Run(a.String(), func(t T) { test(t, a) })
	}
}

// isLocked asks that k leaves in no way.
func (s *suite) isLocked(t T, what string, k keystore.Key) {
	t.Helper()
	_, err := s.store.Seal(k, []byte("context"))
	is(t, "seal a "+what, err, keystore.ErrLocked)
	if w, ok := s.store.(keystore.PeerWrapper); ok {
		_, err := w.WrapFor(&s.peer.PublicKey, k)
		is(t, "wrap a "+what+" for a peer", err, keystore.ErrLocked)
	}
	wrapper, err := s.store.Generate(keystore.AESWrap128)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer wrapper.Close()
	_, err = wrapper.(keystore.Wrapper).Wrap(k)
	is(t, "wrap a "+what, err, keystore.ErrLocked)
}
