package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestDoLeaks leaves all kinds of objects and sessions behind in a function.
func TestDoLeaks(t *testing.T) {
	s, _, _ := newStore(t)
	k := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	want := sum(t, k)
	for range 3 {
		err := s.Device().Do(func(tp transport.TPM) error {
			for range 3 {
				if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(tp); err != nil {
					return err
				}
				if _, _, err := tpm2.HMACSession(tp, tpm2.TPMAlgSHA256, 16); err != nil {
					return err
				}
			}
			_, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(tp)
			return tpm.CommandError("TPM2_CreatePrimary", err)
		})
		says(t, "a fourth object", err, keystore.ErrBusy, "TPM_RC_OBJECT_MEMORY")
		nothingLoaded(t, s.Device())
		if !bytes.Equal(sum(t, k), want) {
			t.Error("another key")
		}
		k.Close()
		k = must[keystore.Key](t)(s.Import(keystore.HMACSHA256, make([]byte, 32)))
		want = hmacOf(make([]byte, 32))
	}
}

// TestForeignFlush flushes what the store has loaded behind its back. The store must
// notice that, and must not lose room.
func TestForeignFlush(t *testing.T) {
	s, _, _ := newStore(t)
	var keys []keystore.Key
	for range 3 {
		keys = append(keys, must[keystore.Key](t)(s.Import(keystore.HMACSHA256, make([]byte, 32))))
	}
	for i := range 10 {
		for _, k := range keys {
			if !bytes.Equal(sum(t, k), hmacOf(make([]byte, 32))) {
				t.Fatal("another key")
			}
		}
		err := s.With(keys[0], func(tp transport.TPM, key tpm2.NamedHandle) error {
			if _, err := (tpm2.FlushContext{FlushHandle: key.Handle}).Execute(tp); err != nil {
				return err
			}
			if i%2 == 0 {
				return nil
			}
			_, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(tp)
			return tpm.CommandError("TPM2_ReadPublic", err)
		})
		if i%2 == 1 {
			is(t, "a handle that is not loaded", err, keystore.ErrLost)
		} else if err != nil {
			t.Error(err)
		}
	}
	isEmpty(t, s)
}

// TestFailed checks that a failed TPM is not reported as bad data.
func TestFailed(t *testing.T) {
	p := tpmtest.Start(t)
	failed := false
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if failed {
			return tpmtest.Refuse(0x101), nil
		}
		return send(command)
	}), time.Minute))
	defer d.Close()
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	k := must[keystore.Key](t)(s.Generate(keystore.RSADecrypt2048)).(crypto.Decrypter)
	oaep := &rsa.OAEPOptions{Hash: crypto.SHA1}
	_, err := k.Decrypt(nil, make([]byte, 256), oaep)
	is(t, "noise", err, keystore.ErrBadData)
	failed = true
	_, err = k.Decrypt(nil, make([]byte, 256), oaep)
	says(t, "a TPM in failure mode", err, keystore.ErrUnavailable, "TPM_RC_FAILURE")
	failed = false
	_, err = k.Decrypt(nil, make([]byte, 256), oaep)
	is(t, "noise", err, keystore.ErrBadData)
}

// TestCurves does not take a TPM that cannot tell its curves now for one that has none.
func TestCurves(t *testing.T) {
	p := tpmtest.Start(t)
	for code, want := range map[uint32]error{0x101: tpm2.TPMRCFailure, 0x153: tpm2.TPMRCNeedsTest, 0x2c4: nil} { // VALUE: there is no such list
		d, err := tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
			if tpmtest.Command(command) == uint32(tpm2.TPMCCGetCapability) && command[13] == byte(tpm2.TPMCapECCCurves) {
				return tpmtest.Refuse(code), nil
			}
			return send(command)
		}), time.Minute)
		if !errors.Is(err, want) {
			t.Errorf("%#x: %v", code, err)
		}
		if err == nil {
			d.Close()
		}
	}
}

// TestTurn waits for another user that keeps the TPM.
func TestTurn(t *testing.T) {
	p := tpmtest.Start(t)
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Dial, 2*time.Second)) // in which a TPM answers on a busy machine, too
	defer d.Close()
	err := d.Do(func(transport.TPM) error {
		return d.Do(func(transport.TPM) error { return nil })
	})
	is(t, "a turn within a turn", err, keystore.ErrBusy)
	var kept transport.TPM
	if err := d.Do(func(tp transport.TPM) error { kept = tp; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Send(readPublic(0x81000001)); err == nil {
		t.Error("the TPM was used after its turn")
	}
	if err := d.Do(func(tp transport.TPM) error { _, err := tp.Send([]byte{1}); return err }); err == nil {
		t.Error("a command of one byte was sent")
	}
	d.Close()
	is(t, "a closed device", d.Do(func(transport.TPM) error { return nil }), keystore.ErrClosed)
}

func TestErrors(t *testing.T) {
	for code, want := range map[tpm2.TPMRC]error{
		0x1df: keystore.ErrForeign,     // INTEGRITY, parameter 1
		0x18b: keystore.ErrNotFound,    // HANDLE, handle 1
		0x910: keystore.ErrLost,        // REFERENCE_H0
		0x918: keystore.ErrLost,        // REFERENCE_S0
		0x98e: keystore.ErrPIN,         // AUTH_FAIL, session 1
		0x9a2: keystore.ErrPIN,         // BAD_AUTH, session 1
		0x921: keystore.ErrPIN,         // LOCKOUT
		0x922: keystore.ErrBusy,        // RETRY
		0x902: keystore.ErrBusy,        // OBJECT_MEMORY
		0x143: errors.ErrUnsupported,   // COMMAND_CODE
		0x1c7: errors.ErrUnsupported,   // KEY_SIZE, parameter 1
		0x101: keystore.ErrUnavailable, // FAILURE
		0x14b: keystore.ErrUnavailable, // NV_SPACE
		0x14c: keystore.ErrExists,      // NV_DEFINED
		0x285: keystore.ErrUnavailable, // HIERARCHY, parameter 2
	} {
		err := tpm.CommandError("TPM2_Any", fmt.Errorf("wrapped: %w", code))
		is(t, err.Error(), err, want)
		if !errors.Is(err, code) || !strings.HasPrefix(err.Error(), "tpm: TPM2_Any: TPM_RC_") {
			t.Errorf("%#x: %v", uint32(code), err)
		}
	}
	if err := tpm.CommandError("TPM2_Any", io.EOF); err != io.EOF {
		t.Errorf("another error became %v", err)
	}
}

// TestFile waits for an answer of a device that does not answer.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	f, err := tpm.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := f.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	f.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(time.Minute))
	if n, err := f.Write([]byte("command")); n != 7 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if n, err := f.Read(make([]byte, 10)); n != 7 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	// A FIFO is a TPM that answers with the command.
	_, err = tpm.Open("tpm:?timeout=1s&device=" + path)
	is(t, "an echo", err, keystore.ErrUnavailable)
}
