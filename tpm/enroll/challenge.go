package enroll

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// The uses of the key of challenges.
const (
	macSecret    = "msl-hsm tpm enrolment 1: secret"
	macChallenge = "msl-hsm tpm enrolment 1: challenge"
)

// macOf returns nil for a key of another kind: a shorter tag would be a weaker
// secret.
func macOf(key keystore.MAC) func([]byte) ([]byte, error) {
	switch {
	case key == nil:
		secret := random(sha256.Size)
		return func(data []byte) ([]byte, error) {
			h := hmac.New(sha256.New, secret)
			h.Write(data)
			return h.Sum(nil), nil
		}
	case key.Algorithm() == keystore.HMACSHA256:
		return key.Sum
	}
	return nil
}

// challenge makes a credential that the TPM with the EK opens if it has the AK
// too (TPM 2.0 Library part 1, section 24). Nothing is kept: the secret in it is
// a MAC over what makes the challenge the only one of its kind.
func (a *Authority) challenge(b *proof.Begin, o *proof.Offered, issued int64) (*proof.Challenge, error) {
	c := &proof.Challenge{Type: proof.TypeChallenge, Version: proof.Version, Nonce: random(proof.SecretSize), Issued: issued}
	secret, err := a.secret(b, c)
	if err != nil {
		return nil, err
	}
	ek, err := tpm2.ImportEncapsulationKey(o.EK.Area)
	if err != nil {
		return nil, proof.Fail(ErrKey, "EK: %w", err)
	}
	if c.Credential, c.Seed, err = tpm2.CreateCredential(rand.Reader, ek, o.AK.Name, secret); err != nil {
		return nil, proof.Fail(ErrKey, "EK: %w", err)
	}
	c.MAC, err = a.macOfChallenge(b, c)
	return c, err
}

func (a *Authority) secret(b *proof.Begin, c *proof.Challenge) ([]byte, error) {
	return a.sum(macSecret, sum256(proof.Encode(b)), c.Nonce, binary.BigEndian.AppendUint64(nil, uint64(c.Issued)))
}

func (a *Authority) macOfChallenge(b *proof.Begin, c *proof.Challenge) ([]byte, error) {
	bare := *c
	bare.MAC = nil
	return a.sum(macChallenge, sum256(proof.Encode(b)), sum256(proof.Encode(bare)))
}

// sum is a MAC over parts, each bound to its length.
func (a *Authority) sum(use string, parts ...[]byte) ([]byte, error) {
	data := []byte(use)
	for _, p := range parts {
		data = binary.BigEndian.AppendUint32(data, uint32(len(p)))
		data = append(data, p...)
	}
	tag, err := a.mac(data)
	if err == nil && len(tag) != proof.SecretSize {
		err = fmt.Errorf("a tag of %d bytes", len(tag))
	}
	if err != nil {
		return nil, fmt.Errorf("enroll: key of challenges: %w", err)
	}
	return tag, nil
}

// checkChallenge checks that the proof answers a challenge of this authority in
// time. Whether it was answered before is for the record to say.
func (a *Authority) checkChallenge(p *proof.Proof) error {
	mac, err := a.macOfChallenge(&p.Begin, &p.Challenge)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(mac, p.Challenge.MAC) != 1 {
		return proof.Fail(ErrStale, "it was not made here for these keys")
	}
	if age := a.c.Time().UnixNano() - p.Challenge.Issued; age > int64(a.c.ChallengeLife) {
		return proof.Fail(ErrStale, "it is older than %v", a.c.ChallengeLife)
	}
	want, err := a.secret(&p.Begin, &p.Challenge)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(p.Secret, want) != 1 {
		return proof.Fail(ErrActivation, "the secret is wrong")
	}
	return nil
}

func sum256(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
