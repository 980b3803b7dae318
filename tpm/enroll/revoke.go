package enroll

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
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

// RevokeCertificate revokes one certificate, by its hexadecimal serial number.
// Its key may get another one.
func (a *Authority) RevokeCertificate(ctx context.Context, serial, note string) error {
	serial = strings.ToLower(strings.TrimLeft(strings.ReplaceAll(serial, ":", ""), "0"))
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.c.Records.Update(ctx, func(tx Tx) error {
		id, err := tx.BySerial(serial)
		if err != nil {
			return err
		}
		r, err := tx.Get(id)
		if err != nil {
			return err
		}
		now := a.c.Time()
		for i := range r.Certificates {
			if c := &r.Certificates[i]; c.Serial == serial && c.Revoked == nil {
				c.Revoked = &Revocation{Time: now, Reason: keyCompromise, Note: proof.Shorten(note)}
				r.log(now, "certificate %s revoked%s", serial, remark(note))
			}
		}
		return tx.Put(r)
	})
}

// RevokeKey revokes a key of a device for ever, by its TPM Name, with its
// certificates. The device may enroll another one. After an error of Withdraw it
// can be repeated.
func (a *Authority) RevokeKey(ctx context.Context, id ID, name HexBytes, note string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var was []Identity
	err := a.changeLocked(ctx, id, func(r *Record, now time.Time) (err error) {
		k := r.key(name)
		if k == nil {
			return proof.Fail(ErrUnknown, "key %s of EK hash %s", name, id)
		}
		if was, err = r.known(); err != nil {
			return err
		}
		why := Revocation{Time: now, Reason: keyCompromise, Note: proof.Shorten(note)}
		if k.Revoked == nil {
			k.Revoked = &why
			r.log(now, "key %s revoked%s", name, remark(note))
		}
		r.revokeCertificates(name, why)
		r.Withdrawn = true
		return nil
	})
	for _, id := range was {
		id.Keys, id.Former = only(id.Keys, name), only(id.Former, name)
		err = errors.Join(err, a.withdraw(ctx, id))
	}
	return err
}

func only(keys []IdentityKey, name HexBytes) (found []IdentityKey) {
	for _, k := range keys {
		if k.Name.String() == name.String() {
			found = append(found, k)
		}
	}
	return found
}

// Revoked reports whether a certificate of this authority does not count any
// more. One that is not in the records, because it was never issued here or has
// expired, is [ErrUnknown].
func (a *Authority) Revoked(ctx context.Context, serial *big.Int) (revoked bool, err error) {
	err = a.c.Records.View(ctx, func(tx Tx) error {
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

// CRL returns the list of revoked certificates that have not expired, signed by
// the CA (RFC 5280 section 5), DER. Its number is the time in nanoseconds.
func (a *Authority) CRL(ctx context.Context) ([]byte, error) {
	if a.c.Certificate == nil {
		return nil, errors.New("enroll: without a CA there is no revocation list")
	}
	now := a.c.Time()
	list := &x509.RevocationList{
		Number: big.NewInt(now.UnixNano()), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(a.c.CRLLife),
	}
	err := a.c.Records.View(ctx, func(tx Tx) error {
		list.RevokedCertificateEntries = nil
		return tx.All(func(r Record) (err error) {
			list.RevokedCertificateEntries, err = appendRevoked(list.RevokedCertificateEntries, r, now)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.c.Certificate, a.c.Key)
	if err != nil {
		return nil, fmt.Errorf("enroll: revocation list: %w", err)
	}
	return der, nil
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

// PEM writes a certificate or a revocation list ("CERTIFICATE", "X509 CRL") as
// text (RFC 7468).
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
