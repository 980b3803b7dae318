//go:build cgo

package hsmtest_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func TestVanishSessions(t *testing.T) {
	r := newRig(t)
	second := r.open(t)
	r.Inject(hsmtest.Fault{Function: "C_GenerateRandom", VanishSessions: true, Skip: 1, Times: 1})
	want(t, "before", r.random(), pkcs11.CKR_OK)
	want(t, "hit", r.random(), pkcs11.CKR_SESSION_HANDLE_INVALID)
	_, err := r.GetSessionInfo(second)
	want(t, "another session", err, pkcs11.CKR_SESSION_HANDLE_INVALID)
	if c := r.Counters(); c.Sessions != 0 || c.Fired != 1 {
		t.Errorf("%d sessions, fired %d times", c.Sessions, c.Fired)
	}
	r.session = r.open(t)
	want(t, "a new session", r.random(), pkcs11.CKR_OK)
	_, err = r.generate(false)
	if err == nil {
		t.Error("the login outlived its sessions")
	}
}

// TestVanishInUse closes sessions that other threads use, which SoftHSM does not
// survive unless those calls have ended.
func TestVanishInUse(t *testing.T) {
	r := newRig(t)
	data := make([]byte, 1<<16)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				s, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
				for err == nil {
					if err = r.DigestInit(s, mechanism(pkcs11.CKM_SHA256)); err == nil {
						_, err = r.Digest(s, data)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			if n := r.Counters().Sessions; n != 0 {
				t.Errorf("%d sessions are left", n)
			}
			return
		default:
			r.Inject(hsmtest.Fault{VanishSessions: true, Times: 1})
		}
	}
}

func TestVanishObjects(t *testing.T) {
	r := newRig(t)
	passing, err := r.generate(false)
	if err != nil {
		t.Fatal(err)
	}
	lasting, err := r.generate(true)
	if err != nil {
		t.Fatal(err)
	}
	class := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, nil)}
	read := func(o pkcs11.ObjectHandle) error {
		_, err := r.GetAttributeValue(r.session, o, class)
		return err
	}
	r.Inject(hsmtest.Fault{VanishObjects: true, Times: 1})
	want(t, "a session object", read(passing), pkcs11.CKR_OBJECT_HANDLE_INVALID)
	want(t, "a token object", read(lasting), pkcs11.CKR_OBJECT_HANDLE_INVALID)
	if c := r.Counters(); c.SessionObjects != 0 || c.TokenObjects != 1 {
		t.Errorf("%d session and %d token objects", c.SessionObjects, c.TokenObjects)
	}
	if err := r.FindObjectsInit(r.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, "k")}); err != nil {
		t.Fatal(err)
	}
	found, _, err := r.FindObjects(r.session, 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v: %v", found, err)
	}
	r.FindObjectsFinal(r.session)
	want(t, "found again", read(found[0]), pkcs11.CKR_OK)
	fresh, err := r.generate(false)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "made since", read(fresh), pkcs11.CKR_OK)
	want(t, "destroy", r.DestroyObject(r.session, found[0]), pkcs11.CKR_OK)
	if c := r.Counters(); c.SessionObjects != 1 || c.TokenObjects != 0 {
		t.Errorf("%d session and %d token objects", c.SessionObjects, c.TokenObjects)
	}
}

func TestRemoved(t *testing.T) {
	r := newRig(t)
	another := softhsm.Temp(t) // in a slot that SoftHSM sees at the next call
	listed := func() (ours, any bool) {
		slots, err := r.GetSlotList(true)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(slots, r.slot), len(slots) > 0
	}
	for _, f := range []hsmtest.Fault{{Removed: true}, {Removed: true, Token: r.token.Label}} {
		r.Inject(f)
		if ours, any := listed(); ours || any != (f.Token != "") {
			t.Errorf("%+v: listed: %v, any: %v", f, ours, any)
		}
		_, err := r.GetTokenInfo(r.slot)
		want(t, "C_GetTokenInfo", err, pkcs11.CKR_TOKEN_NOT_PRESENT)
		_, err = r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
		want(t, "C_OpenSession", err, pkcs11.CKR_TOKEN_NOT_PRESENT)
		want(t, "a session", r.random(), pkcs11.CKR_DEVICE_REMOVED)
		info, err := r.GetSlotInfo(r.slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0 {
			t.Errorf("slot: %+v: %v", info, err)
		}
		if slots, err := r.GetSlotList(false); err != nil || !slices.Contains(slots, r.slot) {
			t.Errorf("all slots: %v: %v", slots, err)
		}
		r.Clear()
		want(t, "the session of before", r.random(), pkcs11.CKR_SESSION_HANDLE_INVALID)
		if ours, _ := listed(); !ours {
			t.Error("it did not come back")
		}
		r.session = r.open(t)
		want(t, "a new session", r.random(), pkcs11.CKR_OK)
	}
	r.Inject(hsmtest.Fault{Removed: true, Token: another.Label})
	want(t, "another token removed", r.random(), pkcs11.CKR_OK)
}

func TestReplace(t *testing.T) {
	other := softhsm.Temp(t)
	r := newRig(t)
	before, err := r.GetTokenInfo(r.slot)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []hsmtest.Fault{{}, {SameLabel: true}, {SameLabel: true, SameSerial: true}} {
		f.Token, f.Replace = r.token.Label, other.Label
		r.Inject(f)
		want(t, "the session of before", r.random(), pkcs11.CKR_SESSION_HANDLE_INVALID)
		info, err := r.GetTokenInfo(r.slot)
		if err != nil {
			t.Fatal(err)
		}
		if (info.Label == before.Label) != f.SameLabel || (info.SerialNumber == before.SerialNumber) != f.SameSerial {
			t.Errorf("%+v: label %q, serial number %q", f, info.Label, info.SerialNumber)
		}
		r.session = r.open(t)
		if info, err := r.GetSessionInfo(r.session); err != nil || info.SlotID != r.slot {
			t.Errorf("session: %+v: %v", info, err)
		}
		want(t, "the PIN of before", r.Login(r.session, pkcs11.CKU_USER, r.pin), pkcs11.CKR_PIN_INCORRECT)
		r.Clear()
		want(t, "a session of the other", r.random(), pkcs11.CKR_SESSION_HANDLE_INVALID)
		if info, err := r.GetTokenInfo(r.slot); err != nil || info.SerialNumber != before.SerialNumber {
			t.Errorf("it did not come back: %+v: %v", info, err)
		}
		r.session = r.open(t)
		want(t, "the PIN", r.Login(r.session, pkcs11.CKU_USER, r.pin), pkcs11.CKR_OK)
	}
	r.Inject(hsmtest.Fault{Token: r.token.Label, Replace: "nowhere"})
	want(t, "a token that is not there", r.random(), pkcs11.CKR_GENERAL_ERROR)
}

// TestReplaceInUse swaps tokens under threads that use them.
func TestReplaceInUse(t *testing.T) {
	other := softhsm.Temp(t)
	r := newRig(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				r.GetTokenInfo(r.slot)
				s, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
				if err == nil {
					r.GetSessionInfo(s)
					r.CloseSession(s)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		r.Inject(hsmtest.Fault{Token: r.token.Label, Replace: other.Label, Times: 50})
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func TestMaxSessions(t *testing.T) {
	r := newRig(t)
	// The delay lets all of them pass the limit before one is open.
	r.Inject(hsmtest.Fault{MaxSessions: 3}, hsmtest.Fault{Function: "C_OpenSession", Delay: 50 * time.Millisecond})
	var wg sync.WaitGroup
	var open, refused [16]bool
	for i := range open {
		wg.Go(func() {
			_, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
			open[i], refused[i] = err == nil, is(err, pkcs11.CKR_SESSION_COUNT)
		})
	}
	wg.Wait()
	count := func(all [16]bool) (n int) {
		for _, yes := range all {
			if yes {
				n++
			}
		}
		return n
	}
	if o, n := count(open), count(refused); o != 2 || n != 14 {
		t.Errorf("%d opened, %d refused; want 2 and 14 beside the one that is open", o, n)
	}
	told := func() uint {
		info, err := r.GetTokenInfo(r.slot)
		if err != nil {
			t.Fatal(err)
		}
		return info.MaxSessionCount
	}
	if n := told(); n != 3 {
		t.Errorf("told %d", n)
	}
	r.Inject(hsmtest.Fault{MaxSessions: 3, ToldSessions: new(^uint(0) - 1)})
	if n := told(); n != ^uint(0)-1 {
		t.Errorf("told %d", n)
	}
	r.Inject(hsmtest.Fault{ToldSessions: new(uint(0))})
	if n := told(); n != 0 {
		t.Errorf("told %d", n)
	}
	r.open(t)
	r.Inject(hsmtest.Fault{MaxSessions: 3})
	r.CloseSession(r.session)
	_, err := r.OpenSession(r.slot, pkcs11.CKF_SERIAL_SESSION)
	want(t, "more are open than can be", err, pkcs11.CKR_SESSION_COUNT)
}

func TestMaxPart(t *testing.T) {
	r := newRig(t)
	r.Inject(hsmtest.Fault{MaxPart: 16})
	begin := func() {
		if err := r.DigestInit(r.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	want(t, "16 bytes", r.DigestUpdate(r.session, make([]byte, 16)), pkcs11.CKR_OK)
	want(t, "17 bytes", r.DigestUpdate(r.session, make([]byte, 17)), pkcs11.CKR_DATA_LEN_RANGE)
	if _, err := r.DigestFinal(r.session); err != nil {
		t.Fatal(err)
	}
	begin()
	_, err := r.Digest(r.session, make([]byte, 17))
	want(t, "17 bytes at once", err, pkcs11.CKR_DATA_LEN_RANGE)
	if n := r.Counters().Fired; n != 2 {
		t.Errorf("fired %d times", n)
	}
}

// TestMaxFound searches for more objects than one call gives.
func TestMaxFound(t *testing.T) {
	r := newRig(t)
	for range 3 {
		if _, err := r.generate(false); err != nil {
			t.Fatal(err)
		}
	}
	r.Inject(hsmtest.Fault{MaxFound: 2})
	if err := r.FindObjectsInit(r.session, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 1, 0} {
		if found, _, err := r.FindObjects(r.session, 10); err != nil || len(found) != n {
			t.Errorf("%d objects of %d, %v", len(found), n, err)
		}
	}
}
