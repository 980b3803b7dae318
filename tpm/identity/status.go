package identity

import (
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Status is what the state file says about a device.
type Status struct {
	Initialized bool        `json:"initialized"`
	ID          string      `json:"id,omitempty"` // EK hash, by which an operator approves it
	EK          EKKind      `json:"ek,omitempty"`
	AK          HexBytes    `json:"ak,omitempty"` // TPM Name
	Enrolled    bool        `json:"enrolled"`
	Name        string      `json:"name,omitempty"`
	Renewing    bool        `json:"renewing"` // a renewal was begun and not completed
	Keys        []KeyStatus `json:"keys,omitempty"`
	LastAttempt *time.Time  `json:"last_attempt,omitempty"`
	LastAnswer  string      `json:"last_answer,omitempty"` // enrolled, pending, rejected, …
}

// A KeyStatus is one LDevID, with its certificate if it has one.
type KeyStatus struct {
	Algorithm keystore.Algorithm `json:"algorithm"`
	Name      HexBytes           `json:"name"` // TPM Name
	Serial    string             `json:"serial,omitempty"`
	NotBefore *time.Time         `json:"not_before,omitempty"`
	NotAfter  *time.Time         `json:"not_after,omitempty"`
	Expired   bool               `json:"expired,omitempty"`
}

// Status returns the state of the device, without using its TPM.
func (d *Device) Status() (Status, error) {
	k, err := d.read()
	if err != nil {
		return Status{}, err
	}
	return k.file.state.status(d.now())
}

func (d *state) status(now time.Time) (Status, error) {
	s := Status{Initialized: d.ready() == nil, Enrolled: d.Identity != nil, Renewing: len(d.Next) > 0}
	if d.EK != nil {
		ek, err := proof.ParsePublic(d.EK.Public)
		if err != nil {
			return s, err
		}
		id, err := proof.EKHash(ek.Key)
		if err != nil {
			return s, err
		}
		s.ID, s.EK = proof.HexBytes(id[:]).String(), d.EK.Kind
	}
	if d.AK != nil {
		ak, err := proof.ParsePublic(d.AK.Public)
		if err != nil {
			return s, err
		}
		s.AK = ak.Name
	}
	if d.Last != nil {
		s.LastAttempt, s.LastAnswer = &d.Last.Time, d.Last.State
	}
	return s, d.keyStatus(&s, now)
}

func (d *state) keyStatus(s *Status, now time.Time) error {
	for i, b := range d.Keys {
		p, err := proof.ParsePublic(b.Public)
		if err != nil {
			return err
		}
		k := KeyStatus{Algorithm: b.Algorithm, Name: p.Name}
		c, err := d.certificate(i)
		if err != nil {
			return err
		}
		if c != nil {
			k.Serial, k.NotBefore, k.NotAfter = c.SerialNumber.Text(16), &c.NotBefore, &c.NotAfter
			k.Expired = now.After(c.NotAfter)
		}
		s.Keys = append(s.Keys, k)
	}
	if d.Identity != nil {
		s.Name = d.Identity.Name
	}
	return nil
}
