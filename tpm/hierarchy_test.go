package tpm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// changeAuth gives a hierarchy without a password one.
func changeAuth(t *testing.T, d *tpm.Device, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
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

// switchOff switches a hierarchy off until the TPM starts again: TPM2_HierarchyControl, by
// the platform's empty password (TPM 2.0 Library, Part 3, clause 24.2).
func switchOff(t *testing.T, d *tpm.Device, hierarchy tpm2.TPMHandle) {
	t.Helper()
	command := []byte{
		0x80, 0x02, 0, 0, 0, 32, 0, 0, 0x01, 0x21, 0x40, 0, 0, 0x0c,
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0,
	}
	command = append(binary.BigEndian.AppendUint32(command, uint32(hierarchy)), 0)
	err := d.Do(func(tp transport.TPM) error {
		answer, err := tp.Send(command)
		if err == nil && tpmtest.Code(answer) != 0 {
			err = fmt.Errorf("TPM2_HierarchyControl: %#x", tpmtest.Code(answer))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// source writes a password to a file and returns its source.
func source(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

// wrongPassword wants a PasswordError about a hierarchy.
func wrongPassword(t *testing.T, what string, err error, hierarchy string, given bool) {
	t.Helper()
	var e *tpm.PasswordError
	if !errors.As(err, &e) || e.Hierarchy != hierarchy || (e.Err != nil) != given || !errors.Is(err, keystore.ErrPIN) {
		t.Errorf("%s: %v, want the password of the %s hierarchy, given %v", what, err, hierarchy, given)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("%s: the error has the password: %v", what, err)
	}
}

// TestOwnerPassword makes a store and a counter on a TPM whose owner has a password, which
// is never in clear on the bus.
func TestOwnerPassword(t *testing.T) {
	p := tpmtest.Start(t)
	spied := false
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		spied = spied || strings.Contains(string(command), "secret")
		return send(command)
	}), time.Minute))
	defer d.Close()
	changeAuth(t, d, tpm2.TPMRHOwner, "secret")
	spied = false
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}
	_, err := d.InitStore(c)
	wrongPassword(t, "no password", err, "owner", false)
	set(t, d, tpm.Passwords{Owner: source(t, "secret, but wrong")})
	_, err = d.InitStore(c)
	wrongPassword(t, "a wrong password", err, "owner", true)
	if _, err := os.Stat(c.State); err == nil {
		t.Error("a state file is left")
	}
	set(t, d, tpm.Passwords{Owner: source(t, "secret")})
	s := must[*tpm.Store](t)(d.InitStore(c))
	defer s.Close()
	set(t, d, tpm.Passwords{})
	if err := work(s); err != nil {
		t.Error(err)
	}
	_, err = s.DefineCounter(tpm.DefaultCounter)
	wrongPassword(t, "a counter without the password", err, "owner", false)
	set(t, d, tpm.Passwords{Owner: source(t, "secret, but wrong")})
	_, err = s.DefineCounter(tpm.DefaultCounter)
	wrongPassword(t, "a counter with a wrong password", err, "owner", true)
	set(t, d, tpm.Passwords{})
	must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	wrongPassword(t, "a persistent key without it", s.Persist("key", 1, 0x81000011), "owner", false)
	set(t, d, tpm.Passwords{Owner: source(t, "secret")})
	counter := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	must[uint64](t)(counter.Increment())
	if err := errors.Join(s.Persist("key", 1, 0x81000011), s.Destroy("key", 0), counter.Remove()); err != nil {
		t.Error(err)
	}
	if spied {
		t.Error("the password is in clear on the bus")
	}
	s.Close()
	isEmpty(t, s)
}

func set(t *testing.T, d *tpm.Device, p tpm.Passwords) {
	t.Helper()
	if err := d.SetPasswords(p); err != nil {
		t.Fatal(err)
	}
}

// TestPasswordNotNeeded gives a password to a TPM that has none, from a source that cannot
// be read: it is not asked for.
func TestPasswordNotNeeded(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	set(t, d, tpm.Passwords{Owner: "file:/nonexistent", Endorsement: "env:NONE", Lockout: "fd:99"})
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	if err := d.ResetLockout(); err != nil {
		t.Error(err)
	}
	if err := d.SetPasswords(tpm.Passwords{Lockout: "secret"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a password in place of its source: %v", err)
	}
}

// TestUnreadablePasswords gives sources without a password that can be used.
func TestUnreadablePasswords(t *testing.T) {
	for what, owner := range map[string]string{
		"no file": "file:/nonexistent", "empty": source(t, ""), "a zero byte": source(t, "a\x00b"), "too long": source(t, strings.Repeat("x", 65)),
	} {
		d := device(t, tpmtest.Start(t))
		changeAuth(t, d, tpm2.TPMRHOwner, "secret")
		set(t, d, tpm.Passwords{Owner: owner})
		_, err := d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")})
		says(t, what, err, keystore.ErrPIN, "password of the TPM's owner hierarchy")
		if what == "a zero byte" {
			says(t, what, err, keystore.ErrPIN, "it has a zero byte: give that hierarchy another one, with tpm2_changeauth -c o -p file:OLD file:NEW, where OLD has hex: and the bytes of this one in hexadecimal")
		}
	}
}

// TestResetLockout unlocks a TPM after too many wrong PINs.
func TestResetLockout(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}
	s := must[*tpm.Store](t)(d.InitStore(c))
	defer s.Close()
	k := must[keystore.Version](t)(s.Create("key", keystore.HMACSHA256)).Key.(keystore.MAC)
	changeAuth(t, d, tpm2.TPMRHLockout, "secret")
	lockOut(t, d, c.State)
	_, err := k.Sum(nil)
	says(t, "locked out", err, keystore.ErrPIN, "TPM_RC_LOCKOUT", "lockout password")
	wrongPassword(t, "without the password", d.ResetLockout(), "lockout", false)
	set(t, d, tpm.Passwords{Lockout: source(t, "secret")})
	if err := d.ResetLockout(); err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"is wrong, and was not tried again: TPM2_DictionaryAttackLockReset: TPM_RC_AUTH_FAIL", "was wrong before, so the TPM accepts none: TPM2_DictionaryAttackLockReset: TPM_RC_LOCKOUT"} {
		set(t, d, tpm.Passwords{Lockout: source(t, "wrong")})
		says(t, "the wrong password", d.ResetLockout(), keystore.ErrPIN, said, ": before the next try, leave the machine on for 16m40s")
	}
	again := openStore(t, d, c)
	sum(t, must[[]keystore.Version](t)(again.Lookup("key"))[0].Key)
}

// TestHierarchyOff names the hierarchy that is switched off, and does not count as a loss of keys.
func TestHierarchyOff(t *testing.T) {
	c := tpm.Config{URI: tpmtest.Serve(t) + "&state=" + filepath.Join(t.TempDir(), "state")}
	must[*tpm.Store](t)(tpm.Init(c)).Close()
	d := must[*tpm.Device](t)(tpm.Open(c.URI))
	switchOff(t, d, tpm2.TPMRHOwner)
	d.Close()
	_, err := tpm.OpenStore(c)
	d = must[*tpm.Device](t)(tpm.Open(c.URI))
	defer d.Close()
	says(t, "a store", err, keystore.ErrUnavailable, "owner hierarchy is disabled")
	if strings.Contains(err.Error(), "is gone") {
		t.Errorf("the storage key is there: %v", err)
	}
	err = d.Do(func(tp transport.TPM) error {
		_, err := tpm.Hierarchy(tp, tpm2.TPMRHEndorsement)
		return err
	})
	if err != nil {
		t.Errorf("the other hierarchy: %v", err)
	}
	switchOff(t, d, tpm2.TPMRHEndorsement)
	err = d.Do(func(tp transport.TPM) error {
		_, err := tpm.Hierarchy(tp, tpm2.TPMRHEndorsement)
		return err
	})
	says(t, "the endorsement hierarchy", err, keystore.ErrUnavailable, "endorsement hierarchy is disabled")
}

// TestPasswordRefused tells a password that was refused from one that was not given.
func TestPasswordRefused(t *testing.T) {
	for want, err := range map[bool]error{
		false: &tpm.PasswordError{Hierarchy: "owner"},
		true:  &tpm.PasswordError{Hierarchy: "owner", Err: tpm2.TPMRCBadAuth},
	} {
		if is(t, err.Error(), err, keystore.ErrPIN); keystore.PINRefused(err) != want {
			t.Errorf("%v: refused %t, want %t", err, !want, want)
		}
	}
}
