//go:build cgo

package hsmtest_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A rig is a token behind a module of this package, with a session logged in.
type rig struct {
	*hsmtest.Module
	*pkcs11.Ctx
	token   *softhsm.Token
	slot    uint
	pin     string
	session pkcs11.SessionHandle
}

func newRig(t *testing.T) *rig {
	t.Helper()
	token := softhsm.Temp(t)
	r := &rig{Module: hsmtest.New(t, token.Module), token: token}
	pin, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err != nil {
		t.Fatal(err)
	}
	r.pin = string(pin)
	r.Ctx = pkcs11.New(r.Path)
	if r.Ctx == nil {
		t.Fatal("the module does not load")
	}
	t.Cleanup(func() {
		r.Clear()
		r.Finalize()
	})
	r.start(t)
	return r
}

// start initializes the module and logs in.
func (r *rig) start(t *testing.T) {
	t.Helper()
	if err := r.Initialize(); err != nil {
		t.Fatal(err)
	}
	slots, err := r.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := r.GetTokenInfo(slot); err == nil && info.Label == r.token.Label {
			r.slot = slot
		}
	}
	r.session = r.open(t)
	if err := r.Login(r.session, pkcs11.CKU_USER, r.pin); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open(t *testing.T) pkcs11.SessionHandle {
	t.Helper()
	s, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) random() error {
	_, err := r.GenerateRandom(r.session, 8)
	return err
}

func (r *rig) generate(token bool) (pkcs11.ObjectHandle, error) {
	return r.GenerateKey(r.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)},
		[]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, "k"),
		})
}

func is(err error, code uint) bool {
	var e pkcs11.Error
	if code == pkcs11.CKR_OK {
		return err == nil
	}
	return errors.As(err, &e) && uint(e) == code
}

func want(t *testing.T, what string, err error, code uint) {
	t.Helper()
	if !is(err, code) {
		t.Errorf("%s: %v, want %v", what, err, pkcs11.Error(code))
	}
}

func TestCode(t *testing.T) {
	r := newRig(t)
	const ok, fault = pkcs11.CKR_OK, pkcs11.CKR_DEVICE_ERROR
	for _, c := range []struct {
		name  string
		fault hsmtest.Fault
		want  []uint
		fired int
	}{
		{"always", hsmtest.Fault{Function: "C_GenerateRandom", Code: fault}, []uint{fault, fault, fault}, 3},
		{"every function", hsmtest.Fault{Code: fault}, []uint{fault, fault}, 2},
		{"a star", hsmtest.Fault{Function: "*", Code: fault}, []uint{fault}, 1},
		{"once", hsmtest.Fault{Function: "C_GenerateRandom", Code: fault, Times: 1}, []uint{fault, ok, ok}, 1},
		{"third and fourth", hsmtest.Fault{Function: "C_GenerateRandom", Code: fault, Skip: 2, Times: 2}, []uint{ok, ok, fault, fault, ok}, 2},
		{"another function", hsmtest.Fault{Function: "C_SeedRandom", Code: fault}, []uint{ok}, 0},
		{"of a vendor", hsmtest.Fault{Function: "C_GenerateRandom", Code: 0x80000123}, []uint{0x80000123}, 1},
	} {
		r.Inject(c.fault)
		for i, code := range c.want {
			if err := r.random(); !is(err, code) {
				t.Errorf("%s: call %d: %v, want %v", c.name, i, err, pkcs11.Error(code))
			}
		}
		if n := r.Counters().Fired; n != c.fired {
			t.Errorf("%s: fired %d times, want %d", c.name, n, c.fired)
		}
	}
	r.Clear()
	want(t, "cleared", r.random(), ok)
}

func TestFor(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Code: pkcs11.CKR_DEVICE_ERROR, For: 200 * time.Millisecond})
	time.Sleep(250 * time.Millisecond) // it lasts from the first hit
	began := time.Now()
	want(t, "first", r.random(), pkcs11.CKR_DEVICE_ERROR)
	for r.random() != nil {
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(began); d < 200*time.Millisecond || d > 5*time.Second {
		t.Errorf("it lasted %v", d)
	}
}

func TestUntilFinalize(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Code: pkcs11.CKR_SESSION_HANDLE_INVALID, UntilFinalize: true})
	r.Finalize()
	r.start(t) // before the first hit, this ends nothing
	for range 3 {
		want(t, "dead", r.random(), pkcs11.CKR_SESSION_HANDLE_INVALID)
	}
	r.Finalize()
	r.start(t)
	want(t, "after C_Finalize", r.random(), pkcs11.CKR_OK)
}

func TestAfter(t *testing.T) {
	r := newRig(t)
	before := r.Counters()
	r.Inject(hsmtest.Fault{Function: "C_GenerateKey", Code: pkcs11.CKR_DEVICE_ERROR, Times: 1})
	_, err := r.generate(false)
	want(t, "before the effect", err, pkcs11.CKR_DEVICE_ERROR)
	if n := r.Counters().SessionObjects - before.SessionObjects; n != 0 {
		t.Errorf("%d objects made", n)
	}
	r.Inject(hsmtest.Fault{Function: "C_GenerateKey", Code: pkcs11.CKR_DEVICE_ERROR, Times: 1, After: true})
	_, err = r.generate(false)
	want(t, "after the effect", err, pkcs11.CKR_DEVICE_ERROR)
	if n := r.Counters().SessionObjects - before.SessionObjects; n != 1 {
		t.Errorf("%d objects made, want 1", n)
	}
}

func TestAttribute(t *testing.T) {
	r := newRig(t)
	key, err := r.generate(false)
	if err != nil {
		t.Fatal(err)
	}
	read := func(types ...uint) error {
		var a []*pkcs11.Attribute
		for _, typ := range types {
			a = append(a, pkcs11.NewAttribute(typ, nil))
		}
		_, err := r.GetAttributeValue(r.session, key, a)
		return err
	}
	r.Inject(hsmtest.Fault{Attribute: []uint{pkcs11.CKA_ID, pkcs11.CKA_LABEL}, Code: pkcs11.CKR_GENERAL_ERROR})
	want(t, "another", read(pkcs11.CKA_CLASS), pkcs11.CKR_OK)
	want(t, "named", read(pkcs11.CKA_ID), pkcs11.CKR_GENERAL_ERROR)
	want(t, "named among others", read(pkcs11.CKA_CLASS, pkcs11.CKA_LABEL), pkcs11.CKR_GENERAL_ERROR)
	_, err = r.generate(false)
	want(t, "named in a template", err, pkcs11.CKR_GENERAL_ERROR)
	want(t, "without a template", r.random(), pkcs11.CKR_OK)
}

func TestMechanism(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Mechanism: []uint{pkcs11.CKM_AES_KEY_GEN}, Code: pkcs11.CKR_MECHANISM_INVALID})
	_, err := r.generate(false)
	want(t, "C_GenerateKey", err, pkcs11.CKR_MECHANISM_INVALID)
	_, err = r.GetMechanismInfo(r.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)})
	want(t, "C_GetMechanismInfo", err, pkcs11.CKR_MECHANISM_INVALID)
	_, err = r.GetMechanismInfo(r.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)})
	want(t, "another", err, pkcs11.CKR_OK)

	r.Inject(hsmtest.Fault{Function: "C_Digest", Mechanism: []uint{pkcs11.CKM_SHA256}, Code: pkcs11.CKR_DEVICE_ERROR})
	for mechanism, code := range map[uint]uint{pkcs11.CKM_SHA256: pkcs11.CKR_DEVICE_ERROR, pkcs11.CKM_SHA384: pkcs11.CKR_OK} {
		s := r.open(t)
		if err := r.DigestInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Digest(s, []byte("data"))
		want(t, "C_Digest", err, code)
	}
}

func TestDelay(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Delay: 100 * time.Millisecond, Times: 1})
	began := time.Now()
	want(t, "delayed", r.random(), pkcs11.CKR_OK)
	if d := time.Since(began); d < 100*time.Millisecond {
		t.Errorf("it took %v", d)
	}
}

// TestHang checks that a hanging call disturbs no other, and continues when cleared.
func TestHang(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Hang: true, Times: 1})
	done := make(chan error)
	go func() { done <- r.random() }()
	for r.Counters().Fired == 0 {
		time.Sleep(time.Millisecond)
	}
	want(t, "beside it", r.random(), pkcs11.CKR_OK)
	select {
	case err := <-done:
		t.Fatalf("it did not hang: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	r.Clear()
	want(t, "hung", <-done, pkcs11.CKR_OK)
}

// TestLeak reads what the process occupies (proc(5), statm).
func TestLeak(t *testing.T) {
	occupied := func() (pages int) {
		text, err := os.ReadFile("/proc/self/statm")
		if err == nil {
			_, err = fmt.Sscan(string(text), new(int), &pages)
		}
		if err != nil {
			t.Skip(err)
		}
		return pages
	}
	r := newRig(t)
	before := occupied()
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", Leak: 8 << 20, Times: 2})
	for range 3 {
		want(t, "leaking", r.random(), pkcs11.CKR_OK)
	}
	if more := (occupied() - before) * os.Getpagesize(); more < 15<<20 || more > 23<<20 {
		t.Errorf("the process occupies %d more bytes", more)
	}
}

func TestCounters(t *testing.T) {
	r := newRig(t)
	before := r.Counters()
	s := r.open(t)
	var keys []pkcs11.ObjectHandle
	for _, token := range []bool{false, false, true, true} {
		k, err := r.generate(token)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	check := func(what string, sessions, objects, token int) {
		t.Helper()
		c := r.Counters()
		if c.Sessions != sessions || c.SessionObjects != objects || c.TokenObjects != token {
			t.Errorf("%s: %d sessions, %d session and %d token objects; want %d, %d and %d", what,
				c.Sessions, c.SessionObjects, c.TokenObjects, sessions, objects, token)
		}
	}
	check("made", 2, 2, 2)
	r.DestroyObject(s, keys[0])
	r.DestroyObject(s, keys[2])
	check("destroyed", 2, 1, 1)
	r.DestroyObject(s, keys[0])
	check("destroyed again", 2, 1, 1)
	r.CloseSession(r.session)
	check("closed", 1, 0, 1)
	r.session = s
	if _, err := r.generate(false); err != nil {
		t.Fatal(err)
	}
	check("made again", 1, 1, 1)
	r.Logout(s)
	check("logged out", 1, 0, 1)
	r.CloseAllSessions(r.slot)
	check("all closed", 0, 0, 1)
	r.open(t)
	r.Finalize()
	check("finalized", 0, 0, 1)
	if n := r.Counters().Calls["C_GenerateKey"] - before.Calls["C_GenerateKey"]; n != 5 {
		t.Errorf("%d calls of C_GenerateKey, want 5", n)
	}
}
