package identity

import (
	"bytes"
	"crypto"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// lockIndex makes an index with a password, which is protected against guessing.
func lockIndex(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle, data []byte, attributes tpm2.TPMANV) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	attributes.OwnerWrite, attributes.AuthRead = true, true
	err := chip.Do(func(tp transport.TPM) error {
		public := tpm2.TPMSNVPublic{NVIndex: at, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(len(data))}
		_, err := tpm2.NVDefineSpace{AuthHandle: owner, Auth: tpm2.TPM2BAuth{Buffer: []byte("password")}, PublicInfo: tpm2.New2B(public)}.Execute(tp)
		if err != nil {
			return err
		}
		p, err := tpm2.NVReadPublic{NVIndex: at}.Execute(tp)
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: at, Name: p.NVName}, Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// failures returns how many wrong passwords the TPM has counted, and how many lock it.
func failures(t *testing.T, chip *tpm.Device) (counted, most uint32) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) error {
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 2}.Execute(tp)
		if err != nil {
			return err
		}
		list, err := r.CapabilityData.Data.TPMProperties()
		if err == nil {
			counted, most = list.TPMProperty[0].Value, list.TPMProperty[1].Value
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return counted, most
}

// TestGuesses reads an index whose password is not the empty one: it costs one of the wrong
// passwords after which a TPM is locked, or none, whoever reads how often.
func TestGuesses(t *testing.T) {
	const at = tpm2.TPMHandle(0x01c0000a)
	for name, tt := range map[string]struct {
		attributes tpm2.TPMANV
		costs      uint32
		why        string
	}{
		"counted":           {tpm2.TPMANV{}, 1, "was not tried again"},
		"counted, or owner": {tpm2.TPMANV{OwnerRead: true}, 0, ""},
		"not counted":       {tpm2.TPMANV{NoDA: true}, 0, "TPM_RC_BAD_AUTH"},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			p := tpmtest.Start(t)
			chip := connect(t, p)
			want := []byte("certificate")
			lockIndex(t, chip, at, want, tt.attributes)
			read := func(chip *tpm.Device) (data []byte, why string) {
				err := chip.Do(func(tp transport.TPM) (err error) {
					data, why, err = readNV(tp, at)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				return data, why
			}
			for range 4 {
				read(chip)
			}
			data, why := read(chip)
			if !strings.Contains(why, tt.why) || (tt.why == "") != bytes.Equal(data, want) {
				t.Errorf("%q, %q", data, why)
			}
			counted, most := failures(t, chip)
			if counted != tt.costs {
				t.Errorf("%d wrong passwords", counted)
			}
			for range most { // programs that are started one after the other
				chip.Close()
				chip = connect(t, p)
				read(chip)
			}
			if counted, _ := failures(t, chip); counted >= most {
				t.Errorf("%d of %d: it is locked", counted, most)
			}
		})
	}
}

// TestGuessedKey enrolls a device often whose maker's key has a password.
func TestGuessedKey(t *testing.T) {
	chip, m := connect(t, tpmtest.Start(t)), newDeviceMaker(t)
	template := signing()
	template.ObjectAttributes.Restricted, template.ObjectAttributes.NoDA = true, false
	provideAs(t, chip, 0x81020001, template, "password", func(key crypto.PublicKey) []byte { return m.issue(t, key, true) })
	d, o := ready(t, chip, newPath(t)), newOffice(t, accepting())
	for range 5 {
		var said []string
		checkError(t, d.Enroll(t.Context(), o.exchange, func(s string) { said = append(said, s) }), nil)
		if !strings.Contains(strings.Join(said, "\n"), "maker is not used: ") {
			t.Error(said)
		}
	}
	if counted, _ := failures(t, chip); counted != 1 {
		t.Errorf("%d wrong passwords", counted)
	}
}
