package keystoretest

import (
	"bytes"

	"github.com/msl-hsm/msl-hsm/internal/wycheproof"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// wrap asks whether the message wraps to the ciphertext.
func (v *vectors) wrap(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.with(keystore.AESWrap128, x.Key, func(k keystore.Key) wycheproof.Verdict {
		w, ok := k.(keystore.DataWrapper)
		if !ok {
			return wycheproof.NotAsked("wrapping keys wrap no data")
		}
		wrapped, err := w.WrapData(x.Message)
		return wycheproof.Accepted(v.opened(x, x.Message, err) && bytes.Equal(wrapped, x.Ciphertext))
	})
}

// reveal asks whether the ciphertext unwraps to bytes.
func (v *vectors) reveal(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.with(keystore.AESReveal128, x.Key, func(k keystore.Key) wycheproof.Verdict {
		raw, err := k.(keystore.Revealer).Reveal(x.Ciphertext)
		if !v.opened(x, x.Ciphertext, err) {
			return wycheproof.Accepted(false)
		}
		v.same("revealed data", x, raw, x.Message)
		return wycheproof.Accepted(true)
	})
}

// unwrap asks whether the ciphertext unwraps to a key.
func (v *vectors) unwrap(_ wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.with(keystore.AESUnwrap128, x.Key, func(k keystore.Key) wycheproof.Verdict {
		return v.unwrapped(k.(keystore.Unwrapper), x)
	})
}

// unwrapped asks for a key as long as the message. A key of any algorithm serves to be
// refused.
func (v *vectors) unwrapped(u keystore.Unwrapper, x wycheproof.Vector) wycheproof.Verdict {
	a, ok := map[int]keystore.Algorithm{16: keystore.AES128CBC, 32: keystore.AES256CBC, 64: keystore.HMACSHA256Block}[len(x.Message)]
	switch {
	case !ok && x.Result == "invalid":
		a = keystore.AES128CBC
	case !ok:
		return wycheproof.NotAsked("wrapped key of %d bytes", len(x.Message))
	}
	k, err := u.Unwrap(a, x.Ciphertext)
	if !v.opened(x, x.Ciphertext, err) {
		return wycheproof.Accepted(false)
	}
	defer k.Close()
	if ok && fingerprint(v.t, v.store, k) != fingerprint(v.t, v.other, v.softKey(v.t, a, x.Message)) {
		v.t.Errorf("%v: unwrapped another key", x)
	}
	return wycheproof.Accepted(true)
}

// unwrapPadded asks that what was wrapped with padding (RFC 5649) does not unwrap without.
func (v *vectors) unwrapPadded(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.padded(v.unwrap(g, forged(x)), x)
}

// revealPadded asks that what was wrapped with padding is not revealed without.
func (v *vectors) revealPadded(g wycheproof.Group, x wycheproof.Vector) wycheproof.Verdict {
	return v.padded(v.reveal(g, forged(x)), x)
}

// forged is a vector that is to be refused.
func forged(x wycheproof.Vector) wycheproof.Vector {
	x.Result = "invalid"
	return x
}

func (v *vectors) padded(d wycheproof.Verdict, x wycheproof.Vector) wycheproof.Verdict {
	v.t.Helper()
	switch {
	case x.Comment == "RFC 3349 padding" && d == wycheproof.Accepted(true):
		return wycheproof.NotAsked("key stores have no AES-KWP (it is AES key wrap)") // the register of RFC 3394
	case d == wycheproof.Accepted(true):
		v.t.Errorf("%v: unwrapped as if it had no padding", x)
	case d == wycheproof.Accepted(false):
		return wycheproof.NotAsked("key stores have no AES-KWP (refused as AES key wrap)")
	}
	return d
}
