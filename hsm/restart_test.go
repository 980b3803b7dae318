package hsm_test

import (
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
)

// TestRestartFails has a device that needs its module initialized again, and a module that
// fails at that, before or after the effect: no session is left open, then or at the
// restarts that follow.
func TestRestartFails(t *testing.T) {
	for name, faults := range map[string][]hsmtest.Fault{
		"C_Finalize":          {{Function: "C_Finalize", Code: pkcs11.CKR_GENERAL_ERROR, Times: 1}},
		"C_Finalize for good": {{Function: "C_Finalize", Code: pkcs11.CKR_GENERAL_ERROR}},
		"C_Finalize, after":   {{Function: "C_Finalize", Code: pkcs11.CKR_GENERAL_ERROR, Times: 1, After: true}},
		"C_Initialize":        {{Function: "C_Initialize", Code: pkcs11.CKR_GENERAL_ERROR, Times: 1}},
		"C_Initialize, after": {{Function: "C_Initialize", Code: pkcs11.CKR_GENERAL_ERROR, Times: 1, After: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newFaulty(t, hsm.Config{})
			u := newUse(t, s)
			failed := hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_DEVICE_ERROR, Times: 2}
			for _, faults := range [][]hsmtest.Fault{append(faults, failed), {failed}, {failed}} {
				m.Inject(faults...)
				if err := u.same(u.mac); err != nil {
					t.Error(err)
				}
				m.Clear()
				u.recovered(t, name, m)
				if inside, known := m.Counters().Sessions, s.Stats().Sessions; inside != known {
					t.Errorf("%d sessions are open in the module, and the store knows %d", inside, known)
				}
			}
		})
	}
}

// TestReadBackFails fails each read of a new key's attributes once: one lost answer does
// not make an operation fail.
func TestReadBackFails(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	for _, function := range []string{"C_GetAttributeValue", "C_SetAttributeValue"} {
		for _, after := range []bool{false, true} {
			for skip := range 8 {
				m.Inject(hsmtest.Fault{Function: function, Code: pkcs11.CKR_FUNCTION_FAILED, Times: 1, Skip: skip, After: after})
				if err := u.exchange(); err != nil {
					t.Errorf("call %d of %s, after %t: %v", skip+1, function, after, err)
				}
				m.Clear()
				u.recovered(t, function, m)
			}
		}
	}
}

// TestOpenSessionAnswerLost has a module open a session, and return an error.
func TestOpenSessionAnswerLost(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	m.Inject(hsmtest.Fault{Function: "C_OpenSession", Code: pkcs11.CKR_DEVICE_MEMORY, Times: 1, After: true},
		hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_FUNCTION_FAILED, Times: 1})
	if err := u.same(u.mac); err != nil {
		t.Error(err)
	}
	if fired := m.Counters().Fired; fired != 2 {
		t.Errorf("%d faults were met", fired)
	}
	m.Clear()
	u.recovered(t, "C_OpenSession", m)
	if inside, known := m.Counters().Sessions, s.Stats().Sessions; inside != known {
		t.Errorf("%d sessions are open in the module, and the store knows %d", inside, known)
	}
}

// TestCloseSessionFails has a module that closes no session for a while.
func TestCloseSessionFails(t *testing.T) {
	s, m := newFaulty(t, hsm.Config{})
	u := newUse(t, s)
	m.Inject(hsmtest.Fault{Function: "C_CloseSession", Code: pkcs11.CKR_FUNCTION_FAILED},
		hsmtest.Fault{Function: "C_Sign", Code: pkcs11.CKR_FUNCTION_FAILED, Times: 2})
	if err := u.same(u.mac); err != nil {
		t.Error(err)
	}
	m.Clear()
	u.recovered(t, "C_CloseSession", m)
	for end := time.Now().Add(2 * time.Second); m.Counters().Sessions != s.Stats().Sessions; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sessions are open in the module, and the store knows %d", m.Counters().Sessions, s.Stats().Sessions)
		}
	}
}
