package identity

import (
	"context"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

const (
	usual = tpm2.TPMHandle(0x81000001)
	other = tpm2.TPMHandle(0x81000005)
)

// persist keeps a primary key at a handle.
func persist(t *testing.T, chip *tpm.Device, template tpm2.TPMTPublic, at tpm2.TPMHandle) {
	t.Helper()
	err := chip.Do(func(t transport.TPM) error {
		key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(t)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
			PersistentHandle: at,
		}.Execute(t)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// signing is the template of a key that is of no use as a storage key.
func signing() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.ObjectAttributes.Decrypt, t.ObjectAttributes.SignEncrypt = false, true
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	})
	return t
}

func persistent(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle) (name []byte) {
	t.Helper()
	err := chip.Do(func(t transport.TPM) error {
		r, err := tpm2.ReadPublic{ObjectHandle: at}.Execute(t)
		if err == nil {
			name = r.Name.Buffer
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// initStore makes a store on another storage key than the usual one.
func initStore(t *testing.T, chip *tpm.Device, path string) *tpm.Store {
	t.Helper()
	s, err := chip.InitStore(tpm.StoreConfig{State: path + ".keys", SRK: uint32(other)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStorageKey enrolls a device whose store has another storage key than the
// usual one: the identity is under that one, whatever is at the usual handle.
func TestStorageKey(t *testing.T) {
	ctx := context.Background()
	for what, prepare := range map[string]func(*tpm.Device){
		"nothing at the usual handle":          func(*tpm.Device) {},
		"a signing key at the usual handle":    func(chip *tpm.Device) { persist(t, chip, signing(), usual) },
		"an RSA storage key at the other one":  func(chip *tpm.Device) { persist(t, chip, tpm2.RSASRKTemplate, other) },
		"another storage key at the usual one": func(chip *tpm.Device) { persist(t, chip, tpm2.RSASRKTemplate, usual) },
	} {
		t.Run(what, func(t *testing.T) {
			chip, path, o := connect(t, tpmtest.Start(t)), newPath(t), newOffice(t, accepting())
			prepare(chip)
			before := persistent(t, chip, usual)
			s := initStore(t, chip, path)
			d, err := Open(s, path)
			if err != nil {
				t.Fatal(err)
			}
			checkError(t, d.Init(ctx, InitOptions{}, nil), nil)
			checkError(t, d.Enroll(ctx, o.exchange, nil), nil)
			checkError(t, d.Renew(ctx, o.exchange, nil), nil)
			checkError(t, d.Check(), nil)
			checkError(t, Diagnose(chip, path), nil)
			checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
			if got := persistent(t, chip, usual); string(got) != string(before) {
				t.Errorf("%#x holds %x, and held %x", usual, got, before)
			}
			if got := persistent(t, chip, other); string(got) != string(saved(t, d).file.state.StorageKey) {
				t.Errorf("%#x holds %x, and the identity is under %x", other, got, saved(t, d).file.state.StorageKey)
			}
			o.verify(nil)
		})
	}
}

// TestStorageKeyOfBefore has an identity under the usual storage key and a store
// under another one, as they were made when the identity chose its own. It works, even if
// another program removes its storage key, until the TPM is cleared.
func TestStorageKeyOfBefore(t *testing.T) {
	ctx := context.Background()
	chip, path, o := connect(t, tpmtest.Start(t)), newPath(t), newOffice(t, accepting())
	checkError(t, ready(t, chip, path).Enroll(ctx, o.exchange, nil), nil)
	persist(t, chip, tpm2.RSASRKTemplate, other)
	s := initStore(t, chip, newPath(t))
	for range 2 {
		d, err := Open(s, path)
		if err != nil {
			t.Fatal(err)
		}
		under := saved(t, d).file.state.StorageKey.String()
		checkError(t, d.Check(), nil)
		checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
		checkError(t, d.Init(ctx, InitOptions{}, nil), nil)
		checkError(t, d.Renew(ctx, o.exchange, nil), nil)
		checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
		if saved(t, d).file.state.StorageKey.String() != under {
			t.Errorf("it moved from %s to %s", under, saved(t, d).file.state.StorageKey)
		}
	}
	o.verify(nil)

	evict(t, chip, usual)
	d, err := Open(s, path)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, d.Check(), nil)
	checkError(t, d.Renew(ctx, o.exchange, nil), nil)
	checkError(t, Diagnose(chip, path), nil)
	checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))

	was := saved(t, d).file.state
	was.StorageKey[2] ^= 1 // as if the seed of the owner were another
	before, err := was.write(path)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, d.Check(), ErrCleared)
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrCleared)
	checkError(t, Diagnose(chip, path), ErrCleared)
	var kept []string
	checkError(t, d.Init(ctx, InitOptions{GivenUp: func(path string) { kept = append(kept, path) }}, nil), nil)
	if len(kept) != 1 || kept[0] != path+".lost" {
		t.Errorf("the identity is kept in %q", kept)
	} else if _, sum, err := readState(kept[0]); err != nil || sum != before {
		t.Errorf("%s is not the file that was replaced: %v", kept[0], err)
	}
	checkError(t, d.Enroll(ctx, o.exchange, nil), nil)
	if got := persistent(t, chip, other); string(got) != string(saved(t, d).file.state.StorageKey) {
		t.Errorf("%#x holds %x, and the identity is under %x", other, got, saved(t, d).file.state.StorageKey)
	}
}

// evict frees a handle.
func evict(t *testing.T, chip *tpm.Device, at tpm2.TPMHandle) {
	t.Helper()
	name := persistent(t, chip, at)
	err := chip.Do(func(t transport.TPM) error {
		_, err := tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: at, Name: tpm2.TPM2BName{Buffer: name}},
			PersistentHandle: at,
		}.Execute(t)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
