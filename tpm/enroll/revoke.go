package enroll

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// Reasons of revocation (RFC 5280 section 5.3.1).
const (
	keyCompromise      = 1
	superseded         = 4
	privilegeWithdrawn = 9
)

// RevokeCertificate revokes one certificate, by its serial number in hexadecimal. Another
// one may be issued for its key. An unknown number is [ErrUnknown].
//
// To revoke a certificate, a key or a device again corrects the times from which the name counts
// that are far ahead, because the clock was.
func (a *Authority) RevokeCertificate(ctx context.Context, serial, note string) error {
	serial = strings.ToLower(strings.TrimLeft(strings.ReplaceAll(serial, ":", ""), "0"))
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records.Update(ctx, func(tx Tx) error {
		id, err := tx.BySerial(serial)
		if err != nil {
			return err
		}
		r, err := tx.Get(id)
		if err != nil {
			return err
		}
		now := a.now()
		for i := range r.Certificates {
			c := &r.Certificates[i]
			if c.Serial == serial && c.revoke(Revocation{Time: now, Reason: keyCompromise, Note: proof.Shorten(note)}) {
				r.log(now, "certificate %s revoked%s", serial, remark(note))
			}
		}
		return tx.Put(r)
	})
}

// RevokeKey permanently revokes a key of a device, by its TPM Name, with its
// certificates. The device may enroll another key. It can be repeated after an error of
// Withdraw.
func (a *Authority) RevokeKey(ctx context.Context, id ID, name HexBytes, note string) error {
	return a.change(ctx, id, func(r *Record, now time.Time) (ended []Identity, err error) {
		k := r.key(name)
		if k == nil {
			return nil, proof.Fail(ErrUnknown, "key %s of EK hash %s", name, id)
		}
		if ended, err = r.known(); err != nil {
			return nil, err
		}
		for i := range ended {
			ended[i].Keys, ended[i].Former = only(ended[i].Keys, name), only(ended[i].Former, name)
		}
		why := Revocation{Time: now, Reason: keyCompromise, Note: proof.Shorten(note)}
		if k.Revoked == nil {
			k.Revoked = &why
			r.log(now, "key %s revoked%s", name, remark(note))
		}
		r.revokeCertificates(name, why)
		r.Withdrawn = true
		return ended, nil
	})
}

func only(keys []IdentityKey, name HexBytes) (found []IdentityKey) {
	for _, k := range keys {
		if k.Name.String() == name.String() {
			found = append(found, k)
		}
	}
	return found
}

// Revoked reports whether a certificate of this authority is revoked. A certificate that
// is not in the records, because it was not issued here or has expired, is [ErrUnknown].
func (l *ledger) Revoked(ctx context.Context, serial *big.Int) (revoked bool, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		revoked = false
		id, err := tx.BySerial(serial.Text(16))
		if err != nil {
			return err
		}
		r, err := tx.Get(id)
		for _, c := range r.Certificates {
			if c.Serial == serial.Text(16) {
				revoked = c.Revoked != nil
			}
		}
		return err
	})
	return revoked, err
}

// CRL returns the list of revoked certificates that have not expired, signed by the CA
// (RFC 5280 section 5), in DER. Its number is the time in nanoseconds since 1970.
func (a *Authority) CRL(ctx context.Context) ([]byte, error) {
	if a.ca == nil {
		return nil, errors.New("enroll: without a CA there is no revocation list")
	}
	now := a.now()
	var revoked []x509.RevocationListEntry
	err := a.records.View(ctx, func(tx Tx) error {
		revoked = nil
		return tx.All(func(r Record) (err error) {
			revoked, err = appendRevoked(revoked, r, now)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return a.ca.list(revoked, now)
}

func appendRevoked(list []x509.RevocationListEntry, r Record, now time.Time) ([]x509.RevocationListEntry, error) {
	for _, c := range r.Certificates {
		if c.Revoked == nil || c.Expires.Before(now) {
			continue
		}
		serial, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			return nil, proof.Fail(ErrDamaged, "serial number %s", proof.Shorten(c.Serial))
		}
		list = append(list, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: c.Revoked.Time, ReasonCode: c.Revoked.Reason})
	}
	return list, nil
}

// PEM encodes DER data as text (RFC 7468). kind is "CERTIFICATE" or "X509 CRL".
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
