package keystoretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// wrapping are the tests of keys that leave wrapped, and of those that come.
type wrapping struct{ *suite }

// testWrap wraps keys here, and unwraps them here and at the software peer.
func (s wrapping) testWrap(t T) {
	each(t, movable(), func(t T, a keystore.Algorithm) {
		shared := random(16)
		wrapper := s.give(t, keystore.AESWrap128, shared).(keystore.Wrapper)
		k := s.generate(t, a)
		wrapped, err := wrapper.Wrap(k)
		if err != nil {
			t.Fatal(err)
		}
		if len(wrapped) != a.Size()+8 {
			t.Errorf("%v wraps to %d bytes, want %d", a, len(wrapped), a.Size()+8)
		}
		want := fingerprint(t, s.store, k)
		there, err := s.softKey(t, keystore.AESUnwrap128, shared).(keystore.Unwrapper).Unwrap(a, wrapped)
		if err != nil {
			t.Fatalf("at the peer: %v", err)
		}
		defer there.Close()
		if fingerprint(t, s.other, there) != want {
			t.Error("the peer unwrapped another key")
		}
		unwrapper := s.give(t, keystore.AESUnwrap128, shared).(keystore.Unwrapper)
		here, err := unwrapper.Unwrap(a, wrapped)
		if fingerprint(t, s.store, s.keep(t, a, here, err)) != want {
			t.Error("unwrapped another key")
		}
		if again, err := wrapper.Wrap(k); err != nil || string(again) != string(wrapped) {
			t.Errorf("a key wraps twice, while not sealed: %v", err)
		}
	})
	t.Run("pair", func(t T) {
		k := s.generate(t, keystore.ECDSAP256)
		wrapper := s.generate(t, keystore.AESWrap128).(keystore.Wrapper)
		if _, err := wrapper.Wrap(k); err == nil {
			t.Error("wrapped a private key")
		}
	})
}

// testUnwrap unwraps what the software peer wrapped, and refuses noise.
func (s wrapping) testUnwrap(t T) {
	each(t, movable(), func(t T, a keystore.Algorithm) {
		shared, raw := random(16), random(a.Size())
		unwrapper := s.give(t, keystore.AESUnwrap128, shared).(keystore.Unwrapper)
		there := s.softKey(t, a, raw)
		wrapped, err := s.softKey(t, keystore.AESWrap128, shared).(keystore.Wrapper).Wrap(there)
		if err != nil {
			t.Fatal(err)
		}
		here, err := unwrapper.Unwrap(a, wrapped)
		here = s.keep(t, a, here, err)
		if fingerprint(t, s.store, here) != fingerprint(t, s.other, there) {
			t.Error("unwrapped another key")
		}
		s.sealsOnce(t, here)
		refuses(t, unwrapper, a, wrapped)
	})
}

// sealsOnce asks that a key unwrapped by a generated key is sealed once.
func (s wrapping) sealsOnce(t T, k keystore.Key) {
	t.Helper()
	s.seal(t, k, nil)
	_, err := s.store.Seal(k, nil)
	is(t, "seal again what was unwrapped", err, keystore.ErrLocked)
}

// refuses asks that nothing but wrapped unwraps.
func refuses(t T, u keystore.Unwrapper, a keystore.Algorithm, wrapped []byte) {
	t.Helper()
	try := func(what string, a keystore.Algorithm, data []byte, want error) {
		t.Helper()
		k, err := u.Unwrap(a, data)
		is(t, "unwrap "+what, err, want)
		if err == nil {
			k.Close()
		}
	}
	for i := range wrapped {
		if len(wrapped) > 64 && i%37 != 0 {
			continue // a private-key operation each
		}
		forged := append([]byte{}, wrapped...)
		forged[i] ^= 0x10
		try("a changed byte", a, forged, keystore.ErrBadData)
	}
	try("nothing", a, nil, keystore.ErrBadData)
	try("one byte", a, wrapped[:1], keystore.ErrBadData)
	try("a cut-off key", a, wrapped[:len(wrapped)-1], keystore.ErrBadData)
	try("a shorter key", a, wrapped[:len(wrapped)-8], keystore.ErrBadData)
	try("a longer key", a, append(append([]byte{}, wrapped...), random(8)...), keystore.ErrBadData)
	try("noise", a, random(len(wrapped)), keystore.ErrBadData)
	longer := keystore.HMACSHA256
	if a.Size() == longer.Size() {
		longer = keystore.AES128CBC
	}
	try("a key of another size", longer, wrapped, keystore.ErrBadData)
	try("a private key", keystore.ECDSAP256, wrapped, errors.ErrUnsupported)
	try("a key that reveals", keystore.AESReveal128, wrapped, errors.ErrUnsupported)
	try("a sealing key", keystore.SealSession256, wrapped, errors.ErrUnsupported)
	try("no algorithm", 0, wrapped, errors.ErrUnsupported)
	if k, err := u.Unwrap(a, wrapped); err != nil {
		t.Errorf("the key does not unwrap after refusals: %v", err)
	} else {
		k.Close()
	}
}

// testOAEP wraps for public keys, and unwraps with private ones.
func (s wrapping) testOAEP(t T) {
	t.Run("wrap", func(t T) {
		each(t, movable(), func(t T, a keystore.Algorithm) { s.wrapsFor(t, a) })
	})
	t.Run("peers", s.testPeers)
	t.Run("unwrap", func(t T) {
		u := s.pair(t, keystore.RSAUnwrap2048).(keystore.Unwrapper)
		each(t, movable(), func(t T, a keystore.Algorithm) { s.unwrapsFrom(t, u, a) })
	})
}

func (s wrapping) wrapsFor(t T, a keystore.Algorithm) {
	k := s.generate(t, a)
	wrapped, err := s.peerWrapper(t).WrapFor(&s.peer.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := decryptAsPeer(s.peer, wrapped)
	if err != nil || len(raw) != a.Size() {
		t.Fatalf("the peer found %d bytes: %v", len(raw), err)
	}
	if fingerprint(t, s.store, k) != fingerprint(t, s.other, s.softKey(t, a, raw)) {
		t.Error("the peer unwrapped another key")
	}
}

func (s wrapping) testPeers(t T) {
	w := s.peerWrapper(t)
	k := s.generate(t, keystore.HMACSHA256)
	n := s.peer.N
	for what, peer := range map[string]*rsa.PublicKey{
		"a modulus of 1024 bits": {N: new(big.Int).Rsh(n, 1024), E: 65537},
		"a modulus of 2047 bits": {N: new(big.Int).SetBit(new(big.Int).Rsh(n, 1), 0, 1), E: 65537},
		"a modulus of 9000 bits": {N: new(big.Int).SetBit(new(big.Int).Set(n), 8999, 1), E: 65537},
		"a negative modulus":     {N: new(big.Int).Neg(n), E: 65537},
		"an even modulus":        {N: new(big.Int).SetBit(n, 0, 0), E: 65537},
		"exponent 0":             {N: n, E: 0},
		"exponent 1":             {N: n, E: 1},
		"exponent 2":             {N: n, E: 2},
		"an even exponent":       {N: n, E: 65536},
		"a negative exponent":    {N: n, E: -65537},
		"no modulus":             {E: 65537},
	} {
		_, err := w.WrapFor(peer, k)
		is(t, "wrap for "+what, err, keystore.ErrBadData)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WrapFor(&curve.PublicKey, k)
	is(t, "wrap for an EC key", err, errors.ErrUnsupported)
	_, err = w.WrapFor(nil, k)
	is(t, "wrap for nothing", err, errors.ErrUnsupported)
	if _, err := w.WrapFor(&s.peer.PublicKey, k); err != nil {
		t.Errorf("the key does not wrap after refusals: %v", err)
	}
}

func (s wrapping) unwrapsFrom(t T, u keystore.Unwrapper, a keystore.Algorithm) {
	there := s.softKey(t, a, random(a.Size()))
	wrapped, err := s.other.WrapFor(publicOf(t, u), there)
	if err != nil {
		t.Fatal(err)
	}
	here, err := u.Unwrap(a, wrapped)
	here = s.keep(t, a, here, err)
	if fingerprint(t, s.store, here) != fingerprint(t, s.other, there) {
		t.Error("unwrapped another key")
	}
	s.sealsOnce(t, here)
	refuses(t, u, a, wrapped)
}

func publicOf(t T, k keystore.Key) *rsa.PublicKey {
	t.Helper()
	p, ok := k.(interface{ Public() crypto.PublicKey })
	if !ok {
		t.Fatalf("%v: %T has no Public method", k.Algorithm(), k)
	}
	public, ok := p.Public().(*rsa.PublicKey)
	if !ok {
		t.Fatalf("%v: public key %T", k.Algorithm(), p.Public())
	}
	return public
}
