package identity

import (
	"bytes"
	"context"
	"crypto"
	"errors"
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
		"cannot make": {tpm2.TPMCCCreatePrimary, memory, keystore.ErrBusy}, "cannot make, failed": {tpm2.TPMCCCreatePrimary, failure, keystore.ErrUnavailable},
	} {
		refused := false
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
		if err := d.Enroll(ctx, o.exchange, nil); !errors.Is(err, tt.want) || errors.Is(err, ErrOtherTPM) {
			t.Errorf("%s: %v", name, err)
		}
		chip.Close()
	}
}

// TestHandleGone does not give up keys because a handle was not there for one command: that
// tells nothing of the seed from which the storage key is made.
func TestHandleGone(t *testing.T) {
	const noHandle = 0x18b // TPM_RC_HANDLE, of the first handle
	p, path, gone := tpmtest.Start(t), newPath(t), false
	chip := connect(t, p)
	before := ready(t, chip, path).file.state.AK.Public
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
	if !bytes.Equal(d.file.state.AK.Public, before) {
		t.Error("another AK")
	}
}

// TestMakerKeyNotNow does not go on without the key of the device's maker because the TPM has
// no memory at this time.
func TestMakerKeyNotNow(t *testing.T) {
	m, p := newDeviceMaker(t), tpmtest.Start(t)
	chip := connect(t, p)
	provide(t, chip, 0x81020001, true, func(key crypto.PublicKey) []byte { return m.issue(t, key, true) })
	chip.Close()
	for code, want := range map[uint32]error{0: nil, 0x904: tpm2.TPMRCMemory, 0x101: tpm2.TPMRCFailure} {
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
			k, err := findMakerKey(tp)
			if (k == nil) != (code != 0) {
				t.Errorf("%#x: key %v", code, k)
			}
			return err
		})
		checkError(t, err, want)
		chip.Close()
	}
}
