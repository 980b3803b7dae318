package keystoretest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// sealing are the tests of sealed keys.
type sealing struct{ *suite }

// testSeal seals and unseals, and asks that nothing leaves a sealed key.
func (s sealing) testSeal(t T) {
	each(t, movable(), func(t T, a keystore.Algorithm) {
		k := s.generate(t, a)
		secret := s.reveal(k)
		want := fingerprint(t, s.store, k)
		context := []byte("context")
		blob := s.seal(t, k, context)
		s.checkBlob(t, a, blob, secret)
		if fingerprint(t, s.store, k) != want {
			t.Error("sealing changed the key")
		}
		s.isLocked(t, "sealed key", k)
		u := s.unseal(t, a, blob, context)
		if fingerprint(t, s.store, u) != want {
			t.Error("unsealed another key")
		}
		s.isLocked(t, "unsealed key", u)
		u.Close()
		if u = s.unseal(t, a, blob, context); fingerprint(t, s.store, u) != want {
			t.Error("unsealed another key the second time")
		}
	})
	t.Run("contexts", func(t T) {
		for _, context := range [][]byte{nil, {0}, random(32), random(5000)} {
			k := s.generate(t, keystore.HMACSHA256)
			blob := s.seal(t, k, slices.Clone(context))
			u := s.unseal(t, keystore.HMACSHA256, s.sealedAgain(t, blob, context), context)
			if fingerprint(t, s.store, u) != fingerprint(t, s.store, k) {
				t.Errorf("unsealed another key with a context of %d bytes", len(context))
			}
		}
	})
}

// reveal returns the bytes of a key that may leave, as a peer sees them, or nil
// if the store is not a PeerWrapper.
func (s sealing) reveal(k keystore.Key) []byte {
	w, ok := s.store.(keystore.PeerWrapper)
	if !ok {
		return nil
	}
	wrapped, err := w.WrapFor(&s.peer.PublicKey, k)
	if err != nil {
		return nil
	}
	raw, err := decryptAsPeer(s.peer, wrapped)
	if err != nil {
		return nil
	}
	return raw
}

func (s sealing) checkBlob(t T, a keystore.Algorithm, blob, secret []byte) {
	t.Helper()
	sealed, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatalf("the blob is not a sealed key: %v", err)
	}
	if sealed.Algorithm != a || len(sealed.Wrapped) < a.Size()+8 || sealed.KEKVersion == 0 {
		t.Errorf("blob of %v, sealing key %d, %d wrapped bytes", sealed.Algorithm, sealed.KEKVersion, len(sealed.Wrapped))
	}
	if secret != nil && bytes.Contains(blob, secret[:8]) {
		t.Error("the blob holds the key in clear")
	}
}

// testSealForged asks that only what Seal returned unseals, and only where and
// how it was meant.
func (s sealing) testSealForged(t T) {
	each(t, movable(), func(t T, a keystore.Algorithm) {
		context := []byte("context")
		blob := s.seal(t, s.generate(t, a), context)
		other := s.seal(t, s.generate(t, a), []byte("another context"))
		s.forgedBytes(t, a, blob, context)
		for what, context := range map[string][]byte{
			"another context": []byte("another context"),
			"no context":      nil,
			"a longer one":    []byte("context\x00"),
			"a shorter one":   []byte("contex"),
		} {
			s.isForeign(t, what, a, blob, context)
		}
		for _, b := range append(keystore.Algorithms(), 0, 255) {
			if b != a {
				s.isForeign(t, fmt.Sprintf("as %v", b), b, blob, context)
			}
		}
		s.swapped(t, a, blob, other, context)
		s.unseal(t, a, blob, context)
	})
	t.Run("foreign", s.testForeignBlob)
}

func (s sealing) forgedBytes(t T, a keystore.Algorithm, blob, context []byte) {
	t.Helper()
	for i := range blob {
		forged := slices.Clone(blob)
		forged[i] ^= 1 << (i % 8)
		s.isForeign(t, fmt.Sprintf("byte %d changed", i), a, forged, context)
	}
	for _, n := range []int{0, 1, 6, 38, len(blob) - 32, len(blob) - 8, len(blob) - 1} {
		s.isForeign(t, fmt.Sprintf("cut off at %d", n), a, blob[:n], context)
	}
	s.isForeign(t, "a byte more", a, append(slices.Clone(blob), 0), context)
	s.isForeign(t, "a byte before", a, append([]byte{1}, blob...), context)
	s.isForeign(t, "nil", a, nil, context)
	s.isForeign(t, "noise", a, random(len(blob)), context)
	// A context byte must not pass for a byte of the wrapped key.
	longer := slices.Insert(slices.Clone(blob), len(blob)-32, context[0])
	s.isForeign(t, "a context byte moved", a, longer, context[1:])
}

// swapped takes each part of the blob from another blob of the same store.
func (s sealing) swapped(t T, a keystore.Algorithm, blob, other, context []byte) {
	t.Helper()
	x, err := keystore.ParseSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	y, err := keystore.ParseSealed(other)
	if err != nil {
		t.Fatal(err)
	}
	s.isForeign(t, "tag of another blob", a, keystore.Sealed{Algorithm: a, KEKVersion: x.KEKVersion, Wrapped: x.Wrapped, Tag: y.Tag}.Bytes(), context)
	s.isForeign(t, "key of another blob", a, keystore.Sealed{Algorithm: a, KEKVersion: x.KEKVersion, Wrapped: y.Wrapped, Tag: x.Tag}.Bytes(), context)
	s.isForeign(t, "another sealing key", a, keystore.Sealed{Algorithm: a, KEKVersion: x.KEKVersion + 1, Wrapped: x.Wrapped, Tag: x.Tag}.Bytes(), context)
	for _, b := range movable() {
		if b != a {
			s.isForeign(t, "renamed", b, keystore.Sealed{Algorithm: b, KEKVersion: x.KEKVersion, Wrapped: x.Wrapped, Tag: x.Tag}.Bytes(), context)
		}
	}
}

func (s sealing) isForeign(t T, what string, a keystore.Algorithm, blob, context []byte) {
	t.Helper()
	k, err := s.store.Unseal(a, blob, context)
	is(t, "unseal "+what, err, keystore.ErrForeign)
	if err == nil {
		k.Close()
	}
	sealed, malformed := keystore.ParseSealed(blob)
	if r, ok := s.store.(keystore.Resealer); ok && (malformed != nil || sealed.Algorithm == a) {
		again, err := r.Reseal(blob, context)
		is(t, "seal again "+what, err, keystore.ErrForeign)
		if len(again) > 0 {
			t.Error("a blob beside an error")
		}
	}
}

// sealedAgain is what a Resealer makes of a blob.
func (s sealing) sealedAgain(t T, blob, context []byte) []byte {
	t.Helper()
	r, ok := s.store.(keystore.Resealer)
	if !ok {
		return blob
	}
	again, err := r.Reseal(blob, context)
	if err != nil {
		t.Fatalf("seal again: %v", err)
	}
	return again
}

func (s sealing) testForeignBlob(t T) {
	foreign := soft.New()
	defer foreign.Close()
	k, err := foreign.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := foreign.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.isForeign(t, "what another store sealed", keystore.HMACSHA256, blob, nil)
}

// testSealRefused asks that a key that cannot be sealed is locked all the same.
func (s sealing) testSealRefused(t T) {
	t.Run("unwrapping", func(t T) {
		k := s.generate(t, keystore.AESUnwrap128)
		blob, err := s.store.Seal(k, nil)
		is(t, "seal an unwrapping key", err, errors.ErrUnsupported)
		if len(blob) > 0 {
			t.Error("a blob beside an error")
		}
		s.isLocked(t, "key that was not sealed", k)
	})
	t.Run("pair", func(t T) {
		k := s.generate(t, keystore.ECDSAP256)
		blob, err := s.store.Seal(k, nil)
		is(t, "seal a key pair", err, errors.ErrUnsupported)
		if len(blob) > 0 {
			t.Error("a blob beside an error")
		}
		_, err = s.store.Seal(k, nil)
		is(t, "seal a key pair again", err, keystore.ErrLocked)
	})
}
