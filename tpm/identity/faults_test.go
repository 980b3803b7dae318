package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestForeignBlobs puts keys of one TPM into the identity of another.
func TestForeignBlobs(t *testing.T) {
	ctx := context.Background()
	o := newOffice(t, accepting())
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	other := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	a, b := saved(t, d), saved(t, other)
	good := a.file.state
	for name, put := range map[string]func(){
		"AK":     func() { a.file.state.AK = b.file.state.AK },
		"LDevID": func() { a.file.state.Keys = b.file.state.Keys },
		"private area of an AK": func() {
			a.file.state.AK = &tpm.Blob{Algorithm: good.AK.Algorithm, Public: good.AK.Public, Private: b.file.state.AK.Private}
		},
		"public area of an AK": func() {
			a.file.state.AK = &tpm.Blob{Algorithm: good.AK.Algorithm, Public: b.file.state.AK.Public, Private: good.AK.Private}
		},
		"private area of a LDevID": func() {
			a.file.state.Keys = []tpm.Blob{{Algorithm: good.Keys[0].Algorithm, Public: good.Keys[0].Public, Private: b.file.state.Keys[0].Private}}
		},
	} {
		put()
		if _, err := a.file.state.write(a.file.path); err != nil {
			t.Fatal(err)
		}
		if err := d.Enroll(ctx, o.exchange, nil); !errors.Is(err, ErrCleared) {
			t.Errorf("%s: %v", name, err)
		}
		a.file.state = good
	}
	// The AK of b with the EK of a, each in its TPM: activation fails.
	if _, err := a.file.state.write(a.file.path); err != nil {
		t.Fatal(err)
	}
	begin, err := d.application(saved(t, d), nil, nil).begin()
	if err != nil {
		t.Fatal(err)
	}
	begin.AK = b.file.state.AK.Public
	response, err := o.exchange(ctx, proof.Encode(begin))
	if err != nil {
		t.Fatal(err)
	}
	c, err := readAnswer[proof.Challenge](response, proof.TypeChallenge)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.application(a, nil, nil).prove(begin, c)
	checkError(t, err, ErrActivation)
	_, err = other.application(b, nil, nil).prove(begin, c)
	checkError(t, err, ErrActivation)
	if list, err := o.List(ctx); err != nil || len(list) > 0 {
		t.Errorf("%d records, %v", len(list), err)
	}
}

func TestDamagedState(t *testing.T) {
	path := newPath(t)
	d := ready(t, connect(t, tpmtest.Start(t)), path)
	if err := d.Enroll(context.Background(), newOffice(t, accepting()).exchange, nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 11 {
		bad := bytes.Clone(good)
		bad[i] ^= 2
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(d.store, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for name, text := range map[string][]byte{"empty": nil, "half": good[:len(good)/2], "longer": append(good, ' ')} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(d.store, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBadTPM has a TPM that is gone, busy, locked or reset while it works.
func TestBadTPM(t *testing.T) {
	ctx := context.Background()
	p := tpmtest.Start(t)
	o := newOffice(t, accepting())
	path := newPath(t)
	chip := connect(t, p)
	d := ready(t, chip, path)
	chip.Close()
	checkError(t, d.Enroll(ctx, o.exchange, nil), keystore.ErrClosed)
	const activate, certify, sign = uint32(tpm2.TPMCCActivateCredential), uint32(tpm2.TPMCCCertify), uint32(tpm2.TPMCCSign)
	tests := []struct {
		name    string
		command uint32
		code    uint32 // 0: the power goes
		want    error
	}{
		{"locked at activation", activate, 0x921, keystore.ErrPIN},
		{"locked at certification", certify, 0x921, keystore.ErrPIN},
		{"has failed", sign, 0x101, keystore.ErrUnavailable},
		{"has failed at activation", activate, 0x101, keystore.ErrUnavailable},
		{"forgets a key", certify, 0x910, keystore.ErrLost},
		{"loses power at activation", activate, 0, keystore.ErrUnavailable},
		{"loses power at certification", certify, 0, keystore.ErrUnavailable},
		{"loses power when it signs", sign, 0, keystore.ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			broken, failed := true, false
			chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
				if cc := tpmtest.Command(command); !broken || cc != tt.command && !failed || cc == uint32(tpm2.TPMCCFlushContext) {
					return send(command)
				}
				failed = tt.code == 0x101 // and answers so to everything
				if tt.code != 0 {
					return tpmtest.Refuse(tt.code), nil
				}
				p.Kill()
				return send(command)
			}), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer chip.Close()
			d := openDevice(t, chip, path)
			err = d.Enroll(ctx, o.exchange, nil)
			if checkError(t, err, tt.want); errors.Is(err, ErrActivation) {
				t.Errorf("the challenge was blamed: %v", err)
			}
			if list, err := o.List(ctx); err != nil || len(list) > 0 {
				t.Errorf("%d records, %v", len(list), err)
			}
			broken = false
			// It continues where it was, with the same objects.
			checkError(t, d.Check(), nil)
		})
	}
	t.Run("busy", func(t *testing.T) {
		chip, err := tpm.NewDevice(p.Quirky(tpmtest.Retry(0x922, 1)), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer chip.Close()
		d := openDevice(t, chip, path)
		checkError(t, d.Enroll(ctx, o.exchange, nil), nil)
		checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
	})
}

// TestBadAuthority has answers that are not for this device.
func TestBadAuthority(t *testing.T) {
	ctx := context.Background()
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	o, other := newOffice(t, accepting()), ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	stranger := ask(t, o, other)
	checkError(t, other.Enroll(ctx, o.exchange, nil), nil)
	_, list, err := other.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	foreign, ca := list[0].Certificate, o.c.Certificate.Raw
	answer := func(r proof.Result) []byte {
		r.Type, r.Version, r.State = proof.TypeResult, proof.Version, proof.StateEnrolled
		return proof.Encode(r)
	}
	tests := []struct {
		name   string
		first  []byte
		second []byte
		want   error
	}{
		{name: "nothing", first: []byte{}, want: ErrMalformed},
		{name: "garbage", first: []byte("garbage"), want: ErrMalformed},
		{name: "too long", first: make([]byte, MaxMessage+1), want: ErrMalformed},
		{name: "challenge of another device", first: proof.Encode(stranger), want: ErrActivation},
		{name: "challenge of nothing", first: proof.Encode(proof.Challenge{Type: proof.TypeChallenge, Version: 1}), want: ErrActivation},
		{name: "a result without a proof", first: answer(proof.Result{Name: "box"}), want: ErrMalformed},
		{name: "an unknown word", first: proof.Encode(proof.Result{Type: proof.TypeResult, Version: 1, State: "\x1bboo"}), want: ErrInternal},
		{name: "a challenge again", second: proof.Encode(stranger), want: ErrMalformed},
		{name: "no name", second: answer(proof.Result{}), want: ErrMalformed},
		{name: "certificate of another key", second: answer(proof.Result{Name: "box", Certificates: [][]byte{foreign.Raw}, CA: ca}), want: ErrMalformed},
		{name: "certificate that is none", second: answer(proof.Result{Name: "box", Certificates: [][]byte{{1}}, CA: ca}), want: ErrMalformed},
		{name: "too many certificates", second: answer(proof.Result{Name: "box", Certificates: [][]byte{ca, ca}, CA: ca}), want: ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			err := d.Enroll(ctx, func(ctx context.Context, request []byte) ([]byte, error) {
				if calls++; calls == 1 && tt.first != nil {
					return tt.first, nil
				}
				if calls == 2 {
					return tt.second, nil
				}
				return o.exchange(ctx, request)
			}, nil)
			checkError(t, err, tt.want)
			if strings.Contains(err.Error(), "\x1b") {
				t.Error("control characters")
			}
			if s, err := d.Status(); err != nil || s.Enrolled {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// ask gets the challenge of a device.
func ask(t *testing.T, o *office, d *Device) proof.Challenge {
	t.Helper()
	b, err := d.application(saved(t, d), nil, nil).begin()
	if err != nil {
		t.Fatal(err)
	}
	response, err := o.Handle(t.Context(), proof.Encode(b))
	if err != nil {
		t.Fatal(err)
	}
	c, err := readAnswer[proof.Challenge](response, proof.TypeChallenge)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExpiredChallenge is an authority that was started again between the
// messages: the device begins again by itself.
func TestExpiredChallenge(t *testing.T) {
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	o := newOffice(t, accepting())
	calls := 0
	err := d.Enroll(context.Background(), func(ctx context.Context, request []byte) ([]byte, error) {
		if calls++; calls == 2 {
			o.restart()
		}
		return o.exchange(ctx, request)
	}, nil)
	if err != nil || calls != 4 {
		t.Errorf("%v after %d messages", err, calls)
	}
}

// TestPowerLoss cuts the power after each use of the EK, which is subject to the
// dictionary attack protection: no use of it here counts for that.
func TestPowerLoss(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []EKKind{EKRSA2048, EKP256, EKP384} {
		p := tpmtest.Start(t)
		o := newOffice(t, accepting())
		path := newPath(t)
		for range 4 {
			chip := connect(t, p)
			d := openDevice(t, chip, path)
			if err := d.Init(ctx, InitOptions{EK: kind}, nil); err != nil {
				t.Fatal(err)
			}
			if err := d.Enroll(ctx, o.exchange, nil); err != nil {
				t.Fatal(err)
			}
			p.Kill()
		}
		chip := connect(t, p)
		err := chip.Do(func(t transport.TPM) error {
			const lockoutCounter = 0x20e // TPM_PT_LOCKOUT_COUNTER
			r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: lockoutCounter, PropertyCount: 1}.Execute(t)
			if err != nil {
				return err
			}
			properties, err := r.CapabilityData.Data.TPMProperties()
			if err != nil {
				return err
			}
			if p := properties.TPMProperty[0]; p.Property != lockoutCounter || p.Value != 0 {
				return fmt.Errorf("property %#x is %d", p.Property, p.Value)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
