package softhsm_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// nonce stands for your service: it asks a token for 16 random bytes.
func nonce(module, label, pin string) ([]byte, error) {
	p := pkcs11.New(module)
	if p == nil {
		return nil, fmt.Errorf("cannot load %s", module)
	}
	defer p.Destroy()
	if err := p.Initialize(); err != nil {
		return nil, fmt.Errorf("C_Initialize: %w", err)
	}
	defer p.Finalize()
	slots, err := p.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("C_GetSlotList: %w", err)
	}
	for _, slot := range slots {
		if info, err := p.GetTokenInfo(slot); err == nil && info.Label == label {
			return random16(p, slot, pin)
		}
	}
	return nil, fmt.Errorf("no token %q", label)
}

func random16(p *pkcs11.Ctx, slot uint, pin string) ([]byte, error) {
	session, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, fmt.Errorf("C_OpenSession: %w", err)
	}
	defer p.CloseSession(session)
	if err := p.Login(session, pkcs11.CKU_USER, pin); err != nil {
		return nil, fmt.Errorf("C_Login: %w", err)
	}
	return p.GenerateRandom(session, 16)
}

// TestServiceWithHSM runs the service on a throwaway SoftHSM2 token, through a module
// that fails on command.
func TestServiceWithHSM(t *testing.T) {
	token := softhsm.Temp(t)
	module := hsmtest.New(t, token.Module)
	pin, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := nonce(module.Path, token.Label, string(pin))
	if err != nil || len(first) != 16 {
		t.Fatalf("a healthy token: %d bytes, %v", len(first), err)
	}

	module.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Code: pkcs11.CKR_DEVICE_ERROR, Times: 1})
	if b, err := nonce(module.Path, token.Label, string(pin)); err == nil {
		t.Errorf("a failing device: %x, and no error", b)
	}
	if n := module.Counters().Fired; n != 1 {
		t.Errorf("the fault was hit %d times", n)
	}
	second, err := nonce(module.Path, token.Label, string(pin))
	if err != nil || bytes.Equal(first, second) {
		t.Errorf("the device is back: %x after %x, %v", second, first, err)
	}
	if n := module.Counters().Sessions; n != 0 {
		t.Errorf("%d sessions are left open", n)
	}
}

// TestServiceWithTPM sends a command to a throwaway swtpm, before and after a loss of
// power.
func TestServiceWithTPM(t *testing.T) {
	chip := tpmtest.Start(t)
	for range 2 {
		conn, err := chip.Dial()
		if err != nil {
			t.Fatal(err)
		}
		r, err := tpm2.GetRandom{BytesRequested: 16}.Execute(transport.FromReadWriter(conn))
		if err != nil || len(r.RandomBytes.Buffer) != 16 {
			t.Errorf("TPM2_GetRandom: %v, %v", r, err)
		}
		conn.Close()
		chip.Kill()
	}
}
