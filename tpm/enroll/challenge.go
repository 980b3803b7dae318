package enroll

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The uses of the key of challenges.
const (
	macSecret    = "msl-hsm tpm enrolment 1: secret"
	macChallenge = "msl-hsm tpm enrolment 1: challenge"
)

// A macFunc computes a MAC.
type macFunc func(data []byte) ([]byte, error)

// macOf returns the function of a key, or an error if it is not for HMAC-SHA256: a shorter
// tag would be a weaker secret.
func macOf(key keystore.MAC) (macFunc, error) {
	if key.Algorithm() != keystore.HMACSHA256 {
		return nil, fmt.Errorf("enroll: the challenge key must be for HMAC-SHA256")
	}
	return key.Sum, nil
}

// macsOf returns a function that returns the MAC functions of the configured keys.
func macsOf(c *Config) func() ([]macFunc, error) {
	if c.MAC == nil {
		secret := random(sha256.Size)
		own := func(data []byte) ([]byte, error) {
			h := hmac.New(sha256.New, secret)
			h.Write(data)
			return h.Sum(nil), nil
		}
		return func() ([]macFunc, error) { return []macFunc{own}, nil }
	}
	return func() (all []macFunc, err error) {
		keys, err := c.MAC()
		for _, key := range keys {
			f, errKey := macOf(key)
			all, err = append(all, f), errors.Join(err, errKey)
		}
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("enroll: no challenge key was given")
		}
		return all, err
	}
}

// A challenger makes the challenges of an authority and recognizes them by its keys,
// without storing them.
type challenger struct {
	macs func() ([]macFunc, error) // the newest first
	life time.Duration
}

// fill makes a credential that only a TPM with both the EK and the AK can open (TPM
// 2.0 Library, Part 1, clause 24). The secret in it is a MAC over everything that makes
// the challenge unique, so it need not be stored.
func (k *challenger) fill(c *proof.Challenge, b *proof.Begin, o *proof.Offered, now time.Time, newest int64) error {
	if fips140.Enforced() {
		return fmt.Errorf("enroll: GODEBUG=fips140=only forbids AES-CFB, the cipher of TPM credentials: use fips140=on: %w", errors.ErrUnsupported)
	}
	macs, err := k.macs()
	if err != nil {
		return err
	}
	mac := macs[0]
	c.Type, c.Version = proof.TypeChallenge, proof.Version
	c.Nonce, c.Issued = issueAt(now, newest)
	secret, err := mac.secret(b, c)
	if err != nil {
		return err
	}
	ek, err := tpm2.ImportEncapsulationKey(o.EK.Area)
	if err != nil {
		return proof.Fail(ErrKey, "EK: %w", err)
	}
	if c.Credential, c.Seed, err = tpm2.CreateCredential(rand.Reader, ek, o.AK.Name, secret); err != nil {
		return proof.Fail(ErrKey, "EK: %w", err)
	}
	c.MAC, err = mac.tag(b, c)
	return err
}

// issueAt returns a nonce, and the time at which a challenge counts as issued: later than the
// newest one that its device used, even if that was with a clock that was ahead. The nonce ends
// with the time that it is here.
func issueAt(now time.Time, newest int64) (nonce []byte, issued int64) {
	at := now.UnixNano()
	return binary.BigEndian.AppendUint64(random(proof.SecretSize-8), uint64(at)), max(at, newest+1)
}

// inTime checks that a challenge is not older than its life. If it counts as issued far ahead
// of the clock here, the time in its nonce decides.
func (k *challenger) inTime(issued int64, nonce []byte, now time.Time) error {
	life := int64(k.life)
	age := now.UnixNano() - issued
	if age < -life && len(nonce) >= 8 {
		age = now.UnixNano() - int64(binary.BigEndian.Uint64(nonce[len(nonce)-8:]))
	}
	switch {
	case age > life:
		return proof.Fail(ErrStale, "it is older than %v, or was made by a clock that was behind the one here", k.life)
	case age < -life:
		return proof.Fail(ErrStale, "it was made by a clock that was more than %v ahead of the one here", k.life)
	}
	return nil
}

// secret computes the secret in the credential.
func (k macFunc) secret(b *proof.Begin, c *proof.Challenge) ([]byte, error) {
	return k.sum(macSecret, sum256(proof.Encode(b)), c.Nonce, binary.BigEndian.AppendUint64(nil, uint64(c.Issued)))
}

// tag computes the MAC by which a challenge is recognized.
func (k macFunc) tag(b *proof.Begin, c *proof.Challenge) ([]byte, error) {
	bare := *c
	bare.MAC = nil
	return k.sum(macChallenge, sum256(proof.Encode(b)), sum256(proof.Encode(bare)))
}

// sum computes a MAC over parts, each with its length.
func (k macFunc) sum(use string, parts ...[]byte) ([]byte, error) {
	data := []byte(use)
	for _, p := range parts {
		data = binary.BigEndian.AppendUint32(data, uint32(len(p)))
		data = append(data, p...)
	}
	tag, err := k(data)
	if err == nil && len(tag) != proof.SecretSize {
		err = fmt.Errorf("a tag of %d bytes", len(tag))
	}
	if err != nil {
		return nil, fmt.Errorf("enroll: challenge key: %w", err)
	}
	return tag, nil
}

// check checks that a proof answers a challenge of this authority in time. Only the
// record shows whether the challenge was used before.
func (k *challenger) check(p *proof.Proof, now time.Time) error {
	mac, err := k.maker(p)
	if err != nil {
		return err
	}
	if err := k.inTime(p.Challenge.Issued, p.Challenge.Nonce, now); err != nil {
		return err
	}
	want, err := mac.secret(&p.Begin, &p.Challenge)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(p.Secret, want) != 1 {
		return proof.Fail(ErrActivation, "the secret is wrong")
	}
	return nil
}

// maker returns the function that made a challenge.
func (k *challenger) maker(p *proof.Proof) (macFunc, error) {
	mac, err := k.made(p.Challenge.MAC, func(mac macFunc) ([]byte, error) { return mac.tag(&p.Begin, &p.Challenge) })
	if err == nil && mac == nil {
		err = proof.Fail(ErrStale, "it was not made here for these keys")
	}
	return mac, err
}

// made returns the function that made a tag, or nil.
func (k *challenger) made(tag []byte, by func(macFunc) ([]byte, error)) (macFunc, error) {
	macs, err := k.macs()
	if err != nil {
		return nil, err
	}
	for _, mac := range macs {
		own, err := by(mac)
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare(own, tag) == 1 {
			return mac, nil
		}
	}
	return nil, nil
}

func sum256(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
