package identity

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestNotNow has a TPM whose EK has a nonce, and that cannot read it, or make the key, at this
// time. It is not another TPM for that.
func TestNotNow(t *testing.T) {
	const memory, failure = 0x904, 0x101
	ctx, p, path, e := context.Background(), tpmtest.Start(t), newPath(t), ekInfos()[1]
	m, chip := newMaker(t), connect(t, p)
	nonce := bytes.Repeat([]byte{0x5a}, 20)
	with, _ := withNonce(e.template, nonce)
	define(t, chip, e.certificate, m.certify(t, primary(t, chip, with)))
	define(t, chip, e.nonce, nonce)
	ready(t, chip, path)
	chip.Close()
	for name, tt := range map[string]struct {
		command tpm2.TPMCC
		code    uint32
		want    error
	}{
		"cannot read": {tpm2.TPMCCNVRead, memory, keystore.ErrBusy}, "cannot read, failed": {tpm2.TPMCCNVRead, failure, keystore.ErrUnavailable},
		"cannot read, locked": {tpm2.TPMCCNVRead, 0x921, tpm2.TPMRCLockout}, "cannot read, flash": {tpm2.TPMCCNVRead, 0x923, tpm2.TPMRCNVUnavailable},
		"cannot read, untested": {tpm2.TPMCCNVRead, 0x153, tpm2.TPMRCNeedsTest}, "cannot read, restart": {tpm2.TPMCCNVRead, 0x130, tpm2.TPMRCReboot},
		"is it persistent": {tpm2.TPMCCReadPublic, 0x923, tpm2.TPMRCNVUnavailable},
		"cannot make":      {tpm2.TPMCCCreatePrimary, memory, keystore.ErrBusy}, "cannot make, failed": {tpm2.TPMCCCreatePrimary, failure, keystore.ErrUnavailable},
	} {
		refused := true
		chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			if tpmtest.Command(command) != uint32(tt.command) || refused {
				return send(command)
			}
			refused = true
			return tpmtest.Refuse(tt.code), nil
		}), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		d := openDevice(t, chip, path)
		o := m.office(t)
		refused = false
		if err := d.Enroll(ctx, o.exchange, nil); !errors.Is(err, tt.want) || errors.Is(err, ErrOtherTPM) {
			t.Errorf("%s: %v", name, err)
		}
		chip.Close()
	}
}

// TestUnreadNonce has an EK with a nonce that may not be read: that does not make it another TPM, and a
// key without the nonce does not take its place.
func TestUnreadNonce(t *testing.T) {
	e, m, chip := ekInfos()[1], newMaker(t), connect(t, tpmtest.Start(t))
	nonce := bytes.Repeat([]byte{0x5a}, 20)
	with, _ := withNonce(e.template, nonce)
	define(t, chip, e.certificate, m.certify(t, primary(t, chip, with)))
	defineAs(t, chip, e.nonce, nonce, len(nonce), tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true})
	err := openDevice(t, chip, newPath(t)).Init(t.Context(), InitOptions{}, nil)
	if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "0x1c0000b") {
		t.Error(err)
	}
}

// TestWrongPasswordOnce does not try a wrong password again with each template of an EK.
func TestWrongPasswordOnce(t *testing.T) {
	tried, e, p := 0, ekInfos()[1], tpmtest.Start(t)
	chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if tpmtest.Command(command) != uint32(tpm2.TPMCCCreatePrimary) || command[13] != 0x0b { // endorsement
			return send(command)
		}
		tried++
		return tpmtest.Refuse(0x9a2), nil // TPM_RC_BAD_AUTH of the first session
	}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer chip.Close()
	define(t, chip, e.nonce, bytes.Repeat([]byte{0x5a}, 20))
	err = openDevice(t, chip, newPath(t)).Init(t.Context(), InitOptions{EK: e.kind}, nil)
	if checkError(t, err, keystore.ErrPIN); tried != 1 {
		t.Errorf("tried %d times", tried)
	}
}

// TestHandleGone does not give up keys because a handle was not there for one command: that
// tells nothing of the seed from which the storage key is made.
func TestHandleGone(t *testing.T) {
	const noHandle = 0x18b // TPM_RC_HANDLE, of the first handle
	p, path, gone := tpmtest.Start(t), newPath(t), false
	chip := connect(t, p)
	before := saved(t, ready(t, chip, path)).file.state.AK.Public
	chip.Close()
	chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if gone && tpmtest.Command(command) == uint32(tpm2.TPMCCLoad) {
			gone = false
			return tpmtest.Refuse(noHandle), nil
		}
		return send(command)
	}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer chip.Close()
	d := openDevice(t, chip, path)
	gone = true
	if err := d.Init(t.Context(), InitOptions{}, nil); gone || err == nil || errors.Is(err, ErrCleared) {
		t.Error(gone, err)
	}
	checkError(t, d.Init(t.Context(), InitOptions{}, nil), nil)
	if !bytes.Equal(saved(t, d).file.state.AK.Public, before) {
		t.Error("another AK")
	}
}

// TestMakerKeyNotNow does not continue without the key of the device's maker because the TPM has
// no memory at this time.
func TestMakerKeyNotNow(t *testing.T) {
	m, p := newDeviceMaker(t), tpmtest.Start(t)
	chip := connect(t, p)
	provide(t, chip, 0x81020001, true, func(key crypto.PublicKey) []byte { return m.issue(t, key, true) })
	chip.Close()
	for code, want := range map[uint32]error{0: nil, 0x904: tpm2.TPMRCMemory, 0x101: tpm2.TPMRCFailure, 0x923: tpm2.TPMRCNVUnavailable, 0x921: tpm2.TPMRCLockout} {
		chip, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			if code == 0 || tpmtest.Command(command) != uint32(tpm2.TPMCCReadPublic) {
				return send(command)
			}
			return tpmtest.Refuse(code), nil
		}), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		err = chip.Do(func(tp transport.TPM) error {
			k, err := findMakerKey(tp, nil)
			if (k == nil) != (code != 0) {
				t.Errorf("%#x: key %v", code, k)
			}
			return err
		})
		checkError(t, err, want)
		chip.Close()
	}
}
