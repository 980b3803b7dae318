package identity

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func TestEnrollByCertificate(t *testing.T) {
	for name, kind := range map[string]EKKind{"default": "", "p384": EKP384} {
		t.Run(name, func(t *testing.T) {
			chip, makers := tpmtest.StartCertified(t)
			o := newOffice(t, enroll.Policy{Bundle: bundleOf(t, makers), RefuseUnknown: true})
			d := openDevice(t, connect(t, chip), filepath.Join(t.TempDir(), "identity"))
			d.PCRs = []uint{0, 7, 16}
			ctx := context.Background()
			options := InitOptions{EK: kind, Algorithms: []keystore.Algorithm{keystore.ECDSAP256, keystore.RSASign2048}}
			if err := d.Init(ctx, options, nil); err != nil {
				t.Fatal(err)
			}
			if err := d.Enroll(ctx, o.exchange, func(s string) { t.Log(s) }); err != nil {
				t.Fatal(err)
			}
			id := idOf(t, d)
			checkIdentity(t, d, o.c.Certificate, defaultName(id))
			r := o.record(id)
			if r.State != enroll.Enrolled || r.Accepted != "EK certificate" || r.Manufacturer == "" || len(r.Evidence.Chain) != 3 {
				t.Errorf("record %+v", r)
			}
			if len(r.Keys) != 2 || r.Registered != r.Name {
				t.Errorf("registered %q, %+v", r.Registered, r.Keys)
			}
			o.verify(pool(makers[0]))
			t.Logf("evidence of %d bytes", len(r.Evidence.Proof))
		})
	}
}

// TestChainInTPM has the certificate between the EK's and the root only in the TPM, with
// other data after it.
func TestChainInTPM(t *testing.T) {
	ctx := context.Background()
	p, makers := tpmtest.StartCertified(t)
	o := newOffice(t, enroll.Policy{Bundle: bundleOf(t, makers[:1]), RefuseUnknown: true})
	chip := connect(t, p)
	d := ready(t, chip, newPath(t))
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrEKCertificate)
	if s, err := d.Status(); err != nil || s.LastAnswer != "ek-certificate" {
		t.Errorf("%+v, %v", s, err)
	}
	define(t, chip, 0x01c00100, append(bytes.Clone(makers[1].Raw), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	o.verify(pool(makers[0]))
}

// define makes an NV index that anyone may read.
func define(t *testing.T, chip *tpm.Device, index tpm2.TPMHandle, data []byte) {
	t.Helper()
	defineAs(t, chip, index, data, len(data), tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true})
}

// defineAs makes an NV index, and writes data if there is any.
func defineAs(t *testing.T, chip *tpm.Device, index tpm2.TPMHandle, data []byte, size int, attributes tpm2.TPMANV) {
	t.Helper()
	area := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size), Attributes: attributes}
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	err := chip.Do(func(tt transport.TPM) error {
		if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(area)}).Execute(tt); err != nil {
			return err
		}
		for at := 0; at < len(data); at += 512 {
			r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tt)
			if err != nil {
				return err
			}
			_, err = tpm2.NVWrite{
				AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: index, Name: r.NVName}, Offset: uint16(at),
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+512, len(data))]},
			}.Execute(tt)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
