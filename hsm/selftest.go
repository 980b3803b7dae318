package hsm

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A selfTester does what a device must be able to do.
type selfTester struct {
	library
	templates sessionTemplates         // of keys of HMACSHA256
	known     func(session uint) error // does the same with a provisioned key
}

// run does each operation on session keys once, with keys that it throws
// away, and looks at the results. A module that makes no session keys does what it can
// with a provisioned one.
func (t selfTester) run(session uint) (err error) {
	if t.bare.Load() {
		return t.known(session)
	}
	var made [4]uint
	defer func() {
		for _, h := range made {
			if h != 0 {
				err = errors.Join(err, t.destroy(session, h))
			}
		}
	}()
	for i, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.HMACSHA256, keystore.SealSession256} {
		if made[i], err = t.throwaway(session, a); err != nil {
			return err
		}
	}
	if err = t.testCipher(session, made[0]); err != nil {
		return err
	}
	if err = t.testKnown(session); err != nil {
		return err
	}
	var tags [2][32]byte
	if err = t.testTag(session, made[1], tags[0][:]); err != nil {
		return err
	}
	f, err := t.sealingForm()
	if err != nil {
		return nil // the module has no more to be tried
	}
	wrapped, err := f.wrap(t.library, session, made[2], made[1], len(tags[0]))
	if err != nil {
		return err
	}
	m, err := f.unwrap(t.library, session, made[2], wrapped, t.taken(t.templates.unseal))
	if made[3] = m.handle; err != nil {
		return err
	}
	if err = t.testTag(session, m.handle, tags[1][:]); err == nil && tags[0] != tags[1] {
		err = errMismatch
	}
	return err
}

var errMismatch = fmt.Errorf("hsm: the device computes a different value than before: %w", keystore.ErrUnavailable)

// throwaway makes a session key that may be wrapped, or that wraps and unwraps if a is a
// sealing algorithm.
func (l library) throwaway(session uint, a keystore.Algorithm) (uint, error) {
	k, err := kindOf(a)
	if err != nil {
		return 0, err
	}
	t := k.secret(false, true).number(pkcs11.CKA_VALUE_LEN, uint(a.Size()))
	m, err := forTrial(l.keyCalls, session, k.generate, t)
	return m.handle, err
}

// testCipher encrypts a block, and decrypts it.
func (t selfTester) testCipher(session, key uint) error {
	var iv, plain, block, back [16]byte
	copy(plain[:], selfTestText)
	n, err := t.encrypt(session, key, pkcs11.CKM_AES_CBC, iv[:], plain[:], block[:])
	if err = exactly("C_Encrypt", n, len(block), err); err != nil {
		return err
	}
	n, err = t.decrypt(session, key, pkcs11.CKM_AES_CBC, iv[:], block[:], back[:])
	if err = exactly("C_Decrypt", n, len(back), err); err == nil && !bytes.Equal(back[:], plain[:]) {
		err = errMismatch
	}
	return err
}

// testKnown has a module that takes keys from outside compute a tag that is known.
func (t selfTester) testKnown(session uint) error {
	if !t.takes.Load() {
		return nil
	}
	var raw, tag [32]byte
	m, err := t.create(session, append(template{}, t.templates.imported...).add(pkcs11.CKA_VALUE, raw[:]))
	if err == nil {
		err = t.testTag(session, m.handle, tag[:])
	}
	h := hmac.New(sha256.New, raw[:])
	h.Write(selfTestText)
	if err == nil && !hmac.Equal(h.Sum(nil), tag[:]) {
		err = errMismatch
	}
	if m.handle != 0 {
		err = errors.Join(err, t.destroy(session, m.handle))
	}
	return err
}

var selfTestText = []byte("msl-hsm self-test")

func (t selfTester) testTag(session, key uint, tag []byte) error {
	n, err := t.sign(session, key, pkcs11.CKM_SHA256_HMAC, selfTestText, tag)
	return wrote("C_Sign", tag, n, err)
}
