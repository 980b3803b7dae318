package hsm

// #include "operation.h"
import "C"

import (
	"time"
	"unsafe"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A measure is the time that an operation takes, if somebody wants to know.
type measure struct {
	module     functions
	tell       func(keystore.Call)
	began, ran time.Time
}

// wait begins the wait for a session, unless it has begun. Most operations wait for nothing.
func (m *measure) wait() {
	if m.tell != nil && m.began.IsZero() {
		m.began = time.Now()
	}
}

// run ends the wait: what the session does next is measured.
func (m *measure) run(session uint) {
	if m.tell != nil {
		m.module.place(session).began = C.FN_count
		m.ran = time.Now()
		if m.began.IsZero() {
			m.began = m.ran
		}
	}
}

// end reports the operation.
func (m *measure) end(session uint, err error) {
	if m.tell == nil {
		return
	}
	now := time.Now()
	m.tell(keystore.Call{Function: m.module.began(session), Queue: m.ran.Sub(m.began), Run: now.Sub(m.ran), Err: err})
}

// giveUp reports an operation that got no session.
func (m *measure) giveUp(err error) {
	if m.tell != nil {
		m.tell(keystore.Call{Queue: time.Since(m.began), Err: err})
	}
}

// unreached reports an operation that fails because nothing can reach the device, and
// returns its error.
func (c *connection) unreached(err error) error {
	if c.told != nil {
		c.told(keystore.Call{Err: err})
	}
	return err
}

// place is where the functions called on a session are noted.
func (f functions) place(session uint) *C.msl_place { return &C.msl_places[f.number(session)] }

func (f functions) number(session uint) uint8 {
	return uint8(uint64(session+uint(uintptr(unsafe.Pointer(f.list)))) * C.MSL_SPREAD >> 56)
}

// began names the function with which the operation on a session began: the one that
// does the work, where another prepares it.
func (f functions) began(session uint) string {
	switch fn := f.place(session).began; fn {
	case C.FN_EncryptInit, C.FN_DecryptInit, C.FN_SignInit, C.FN_FindObjectsInit:
		return functionNames[int(fn)+1]
	case C.FN_DigestInit:
		return functionNames[C.FN_DigestKey]
	default:
		return functionNames[int(fn)]
	}
}
