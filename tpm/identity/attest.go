package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Attest proves to the authority in which state this machine was started, with a quote of
// PCRs, and with the event log if the authority asks for it. It needs no EK and changes
// nothing on this machine. The error is
// [ErrPolicy] if the authority does not allow that state, [ErrRevoked] if it has revoked
// the device, and [ErrMalformed] if it does not support attestation.
func (d *Device) Attest(ctx context.Context, exchange Exchange) error {
	s, err := d.Status()
	if err != nil {
		return err
	}
	if !s.Enrolled {
		return fmt.Errorf("enroll: %w", ErrNotEnrolled)
	}
	id, err := hex.DecodeString(s.ID)
	if err != nil {
		return fmt.Errorf("enroll: EK hash: %w", err)
	}
	err = d.attest(ctx, exchange, id)
	if errors.Is(err, ErrStale) {
		err = d.attest(ctx, exchange, id)
	}
	return err
}

func (d *Device) attest(ctx context.Context, exchange Exchange, id []byte) error {
	b := proof.AttestBegin{Type: proof.TypeAttestBegin, Version: proof.Version, ID: id, EventLog: len(d.EventLog) > 0}
	answer, err := exchange(ctx, proof.Encode(b))
	if err != nil {
		return fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	c, err := readAnswer[proof.AttestChallenge](answer, proof.TypeAttestChallenge)
	if err != nil {
		return err
	}
	a, err := d.attestation(id, c)
	if err != nil {
		return err
	}
	if answer, err = exchange(ctx, proof.Encode(a)); err != nil {
		return fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	_, err = proof.ParseResult(answer)
	return err
}

// attestation answers a challenge.
func (d *Device) attestation(id []byte, c proof.AttestChallenge) (a proof.Attestation, err error) {
	k, err := d.readReady()
	if err != nil {
		return a, err
	}
	a = proof.Attestation{Type: proof.TypeAttestation, Version: proof.Version, ID: id, Challenge: c, AK: k.file.state.AK.Public}
	if c.EventLog {
		if a.EventLog, err = proof.PackLog(d.EventLog); err != nil {
			a.EventLog = nil // the authority has no use for it
		}
	}
	a.Quote, err = k.quote(a.Digest(), d.PCRs)
	return a, err
}
