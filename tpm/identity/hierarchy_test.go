package identity

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// changeAuth gives a hierarchy a password.
func changeAuth(t *testing.T, chip *tpm.Device, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	err := chip.Do(func(tp transport.TPM) error {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte(password)},
		}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// givePasswords tells the passwords of both hierarchies.
func givePasswords(t *testing.T, chip *tpm.Device, owner, endorsement string) {
	t.Helper()
	dir := t.TempDir()
	source := func(name, password string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	if err := chip.SetPasswords(tpm.Passwords{Owner: source("o", owner), Endorsement: source("e", endorsement)}); err != nil {
		t.Fatal(err)
	}
}

// TestPasswords gets an identity from a TPM whose hierarchies have passwords, for every kind
// of EK that it makes. They are never in clear on the bus.
func TestPasswords(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []EKKind{EKRSA2048, EKP256, EKP384, EKP256High} {
		t.Run(string(kind), func(t *testing.T) {
			spied := false
			p := tpmtest.Start(t)
			chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
				spied = spied || strings.Contains(string(command), "secret-")
				return send(command)
			}), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer chip.Close()
			changeAuth(t, chip, tpm2.TPMRHOwner, "secret-o")
			changeAuth(t, chip, tpm2.TPMRHEndorsement, "secret-e")
			spied = false
			givePasswords(t, chip, "secret-o", "wrong")
			path, o := newPath(t), newOffice(t, accepting())
			d := openDevice(t, chip, path)
			err = d.Init(ctx, InitOptions{EK: kind}, nil)
			var wrong *tpm.PasswordError
			if !errors.As(err, &wrong) || wrong.Hierarchy != "endorsement" || wrong.Err == nil {
				t.Errorf("a wrong password: %v", err)
			}
			givePasswords(t, chip, "secret-o", "secret-e")
			checkError(t, d.Init(ctx, InitOptions{EK: kind}, nil), nil)
			givePasswords(t, chip, "not needed", "secret-e")
			checkError(t, d.Enroll(ctx, o.exchange, nil), nil)
			checkError(t, d.Renew(ctx, o.exchange, nil), nil)
			checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
			if err := chip.SetPasswords(tpm.Passwords{}); err != nil {
				t.Fatal(err)
			}
			err = d.Enroll(ctx, o.exchange, nil)
			if !errors.As(err, &wrong) || wrong.Hierarchy != "endorsement" || wrong.Err != nil {
				t.Errorf("no password: %v", err)
			}
			checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
			if spied {
				t.Error("a password is in clear on the bus")
			}
		})
	}
}

// TestNothingIsGivenUp fails in the Init that follows the loss of the keys: as long as there
// is not a new AK, the file is as it was.
func TestNothingIsGivenUp(t *testing.T) {
	ctx := context.Background()
	for what, lose := range map[string]func(*tpmtest.TPM){
		"cleared":  func(p *tpmtest.TPM) { p.Clear(t) },
		"replaced": func(p *tpmtest.TPM) { p.Replace(t) },
	} {
		t.Run(what, func(t *testing.T) {
			p := tpmtest.Start(t)
			path, o := newPath(t), newOffice(t, accepting())
			checkError(t, ready(t, connect(t, p), path).Enroll(ctx, o.exchange, nil), nil)
			lose(p)
			fail := false
			chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
				if fail && tpmtest.Command(command) == uint32(tpm2.TPMCCCreate) {
					return tpmtest.Refuse(uint32(tpm2.TPMRCFailure)), nil
				}
				return send(command)
			}), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer chip.Close()
			d := openDevice(t, chip, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fail = true
			checkError(t, d.Init(ctx, InitOptions{Replace: true}, nil), tpm2.TPMRCFailure)
			fail = false
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file has changed, %v", err)
			}
			checkError(t, d.Init(ctx, InitOptions{Replace: true}, nil), nil)
			checkError(t, d.Enroll(ctx, o.exchange, nil), nil)
		})
	}
}
