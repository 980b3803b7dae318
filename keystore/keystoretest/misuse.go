package keystoretest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// misuse are the tests of what must be refused.
type misuse struct{ *suite }

func (s misuse) testUnsupported(t T) {
	sealing := []keystore.Algorithm{keystore.SealSession256, keystore.SealWrapping256, keystore.SealMAC256}
	for _, a := range append(sealing, 0, 200, 255) {
		_, err := s.store.Generate(a)
		is(t, "generate "+a.String(), err, errors.ErrUnsupported)
	}
	i := s.importer(t)
	for _, a := range append(sealing, 0, 255, keystore.RSASign2048, keystore.RSAUnwrap2048, keystore.RSADecrypt2048, keystore.ECDSAP256) {
		_, err := i.Import(a, random(32))
		is(t, "import "+a.String(), err, errors.ErrUnsupported)
	}
	for _, a := range movable() {
		for _, n := range []int{0, 1, a.Size() - 1, a.Size() + 1, a.Size() * 2} {
			if _, err := i.Import(a, random(n)); err == nil {
				t.Errorf("imported %d bytes as %v", n, a)
			}
		}
	}
}

// testClosed asks that a closed key does nothing.
func (s misuse) testClosed(t T) {
	all := append(movable(), keystore.AESUnwrap128, keystore.RSAUnwrap2048, keystore.ECDSAP256,
		keystore.RSADecrypt2048, keystore.AESReveal128, keystore.RSAPSS2048)
	each(t, all, func(t T, a keystore.Algorithm) {
		k := s.lastPair(t, a)
		for range 2 {
			if err := k.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if k.Algorithm() != a {
			t.Errorf("%v became %v when it was closed", a, k.Algorithm())
		}
		usedAfterClose(t, k, s.generate(t, keystore.HMACSHA256))
		_, err := s.store.Seal(k, nil)
		is(t, "seal a closed key", err, keystore.ErrClosed)
		s.wrapClosed(t, k)
	})
}

// usedAfterClose asks that every operation of k is refused. victim is a key of
// the same store for k to wrap.
func usedAfterClose(t T, k, victim keystore.Key) {
	t.Helper()
	tried := false
	refused := func(what string, err error) {
		t.Helper()
		tried = true
		is(t, what+" with a closed key", err, keystore.ErrClosed)
	}
	if k, ok := k.(keystore.Cipher); ok {
		_, err := k.Encrypt(make([]byte, 16), nil)
		refused("encrypt", err)
		_, err = k.Decrypt(make([]byte, 16), make([]byte, 16))
		refused("decrypt", err)
	}
	if k, ok := k.(keystore.MAC); ok {
		_, err := k.Sum(nil)
		refused("sum", err)
	}
	if k, ok := k.(keystore.Wrapper); ok {
		_, err := k.Wrap(victim)
		refused("wrap", err)
	}
	if k, ok := k.(keystore.DataWrapper); ok {
		_, err := k.WrapData(make([]byte, 16))
		refused("wrap data", err)
	}
	if k, ok := k.(keystore.Revealer); ok {
		_, err := k.Reveal(make([]byte, 24))
		refused("reveal", err)
	}
	if k, ok := k.(crypto.Decrypter); ok {
		_, err := k.Decrypt(nil, make([]byte, 256), oaep())
		refused("decrypt", err)
	}
	if k, ok := k.(keystore.Unwrapper); ok {
		_, err := k.Unwrap(keystore.AES128CBC, make([]byte, 24))
		refused("unwrap", err)
	}
	if k, ok := k.(crypto.Signer); ok {
		digest := sha256.Sum256(nil)
		_, err := k.Sign(rand.Reader, digest[:], signOptions(k.(keystore.Key)))
		refused("sign", err)
	}
	if !tried {
		t.Errorf("%v: %T has no operation to refuse", k.Algorithm(), k)
	}
}

func (s misuse) wrapClosed(t T, k keystore.Key) {
	t.Helper()
	if !k.Algorithm().Secret() {
		return
	}
	if w, ok := s.store.(keystore.PeerWrapper); ok {
		_, err := w.WrapFor(&s.peer.PublicKey, k)
		is(t, "wrap a closed key for a peer", err, keystore.ErrClosed)
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
	is(t, "wrap a closed key", err, keystore.ErrClosed)
}

// testForeign gives the store keys that are not its own.
func (s misuse) testForeign(t T) {
	second := s.open(t)
	defer second.Close()
	for what, store := range map[string]keystore.Store{"soft": s.other, "second": second} {
		t.Run(what, func(t T) {
			k, err := store.Generate(keystore.HMACSHA256)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			_, err = s.store.Seal(k, nil)
			is(t, "seal a key of another store", err, keystore.ErrWrongKey)
			if _, err := store.Seal(k, nil); err != nil {
				t.Errorf("its own store does not seal the key any more: %v", err)
			}
			if w, ok := s.store.(keystore.PeerWrapper); ok {
				_, err := w.WrapFor(&s.peer.PublicKey, k)
				is(t, "wrap a key of another store for a peer", err, keystore.ErrWrongKey)
			}
			_, err = s.generate(t, keystore.AESWrap128).(keystore.Wrapper).Wrap(k)
			is(t, "wrap a key of another store", err, keystore.ErrWrongKey)
		})
	}
	t.Run("nil", func(t T) {
		_, err := s.store.Seal(nil, nil)
		is(t, "seal nil", err, keystore.ErrWrongKey)
	})
}

// testStoreClose closes a store with all its keys, and then the store of the
// whole run.
func (s misuse) testStoreClose(t T) {
	store := s.open(t)
	var keys []keystore.Key
	for _, a := range append(movable(), keystore.AESUnwrap128, keystore.ECDSAP256) {
		k, err := store.Generate(a)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	sealing, err := store.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := store.Seal(sealing, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	isEmpty(t, store)
	for _, k := range keys {
		usedAfterClose(t, k, keys[0])
		_, err := store.Seal(k, nil)
		is(t, "seal after the store was closed", err, keystore.ErrClosed)
		if err := k.Close(); err != nil {
			t.Errorf("close %v after its store: %v", k.Algorithm(), err)
		}
	}
	storeClosed(t, store, blob)
	if err := s.store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	isEmpty(t, s.store)
}

func storeClosed(t T, store keystore.Store, blob []byte) {
	t.Helper()
	_, err := store.Generate(keystore.AES128CBC)
	is(t, "generate in a closed store", err, keystore.ErrClosed)
	_, err = store.Lookup(label("missing"))
	is(t, "look up in a closed store", err, keystore.ErrClosed)
	_, err = store.Unseal(keystore.HMACSHA256, blob, nil)
	is(t, "unseal in a closed store", err, keystore.ErrClosed)
	if i, ok := store.(keystore.Importer); ok {
		_, err := i.Import(keystore.AES128CBC, random(16))
		is(t, "import in a closed store", err, keystore.ErrClosed)
	}
	if admin, ok := store.(keystore.Admin); ok {
		_, err := admin.Create(label("closed"), keystore.AES128CBC)
		is(t, "create in a closed store", err, keystore.ErrClosed)
		_, err = admin.List()
		is(t, "list a closed store", err, keystore.ErrClosed)
		is(t, "destroy in a closed store", admin.Destroy(label("closed"), 0), keystore.ErrClosed)
	}
}

func isEmpty(t T, store keystore.Store) {
	t.Helper()
	if l, ok := store.(Leaker); ok {
		if objects, sessions := l.Live(); objects != 0 || sessions != 0 {
			t.Errorf("a closed store holds %d objects and %d sessions", objects, sessions)
		}
	}
}

// signOptions are what a key signs with.
func signOptions(k keystore.Key) crypto.SignerOpts {
	if k.Algorithm().PSS() {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	return crypto.SHA256
}
