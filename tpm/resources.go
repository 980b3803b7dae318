package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

const maxLoaded = 3 // objects, and sessions: what every TPM and every kernel holds

// Resources share out the little room that a TPM has for objects and sessions: a
// resource manager in the words of the TCG. They send every command, keep count of
// what is loaded, and flush what was not used for longest to make room.
type resources struct {
	connection connection
	exclusive  bool // no other program has the TPM, and nobody tidies up after this one

	fresh    map[uint32]bool // handles of objects and sessions that belong to the operation under way
	resident []*object       // loaded keys, least recently used first
	sessions []*session      // likewise
}

// connect opens a connection that is not there, and has a TPM that nobody else
// uses tidied up.
func (r *resources) connect() error {
	if r.connection.isOpen() {
		return nil
	}
	if err := r.connection.open(); err != nil {
		return err
	}
	if r.exclusive {
		return r.tidy()
	}
	return nil
}

// tidy flushes what a process left in the TPM that was killed: after a few of
// them there is no room for a session any more, until a reset. What the TPM does
// not answer here, the operation under way hears too.
func (r *resources) tidy() error {
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} { // objects, sessions, saved sessions
		items, err := capability(&link{r}, tpm2.TPMCapHandles, first, 254, 4)
		if !r.connection.isOpen() {
			return err
		}
		for _, item := range items {
			r.flush(binary.BigEndian.Uint32(item))
		}
	}
	return nil
}

// send sends one command, and again while the TPM asks for it, and keeps count
// of what is loaded. The response is good until the next one.
func (r *resources) send(command []byte) ([]byte, error) {
	cc := binary.BigEndian.Uint32(command[6:])
	r.makeRoom(cc)
	var start time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		response, err := r.exchange(cc, command)
		if err != nil {
			r.lose()
			return nil, &linkError{command: cc, err: err}
		}
		again := false
		switch tpm2.TPMRC(code(response)) {
		case tpm2.TPMRCSuccess:
			r.track(cc, command, response)
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCCanceled:
			if start.IsZero() {
				start = time.Now()
			}
			if again = time.Since(start) < r.connection.timeout; again {
				time.Sleep(wait)
			}
		case tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles:
			again = r.evict()
		case tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles:
			again = r.endSession()
		}
		if !again {
			return response, nil
		}
	}
}

// exchange has a command answered by a TPM that is started: one that was switched
// off and on asks for it.
func (r *resources) exchange(cc uint32, command []byte) ([]byte, error) {
	for {
		response, err := r.connection.exchange(command)
		if err != nil || tpm2.TPMRC(code(response)) != tpm2.TPMRCInitialize || cc == ccStartup {
			return response, err
		}
		if err := r.startup(); err != nil {
			return nil, err
		}
	}
}

// startup starts a TPM that was switched off and on. It has forgotten what was
// loaded.
func (r *resources) startup() error {
	r.forget()
	response, err := r.connection.exchange(packet(ccStartup, []byte{0, 0})) // TPM_SU_CLEAR
	if err == nil && code(response) != 0 {
		err = &Error{Command: commandName(ccStartup), Code: tpm2.TPMRC(code(response))}
	}
	return err
}

// makeRoom lets keys and sessions go before a command that makes one more. A
// device of the Linux kernel has no warning: it breaks the connection.
func (r *resources) makeRoom(cc uint32) {
	if makesObject(cc) {
		for r.loaded()+1 > maxLoaded && r.evict() {
		}
	}
	if cc == ccStartAuthSession {
		for r.started()+1 > maxLoaded && r.endSession() {
		}
	}
}

func makesObject(cc uint32) bool {
	switch cc {
	case ccLoad, ccLoadExternal, ccCreatePrimary, ccCreateLoaded, ccContextLoad, ccHMACStart, ccHashSequence:
		return true
	}
	return false
}

// loaded counts the transient objects.
func (r *resources) loaded() (n int) {
	for _, o := range r.resident {
		if o.persistent == 0 {
			n++
		}
	}
	for handle := range r.fresh {
		if handle>>24 == 0x80 {
			n++
		}
	}
	return n
}

// started counts the sessions.
func (r *resources) started() int {
	n := len(r.sessions)
	for handle := range r.fresh {
		if handle>>24 != 0x80 {
			n++
		}
	}
	return n
}

// track keeps the handles that a command made or ended.
func (r *resources) track(cc uint32, command, response []byte) {
	switch {
	case (cc == ccFlushContext || cc == ccSequenceComplete) && len(command) >= 14:
		delete(r.fresh, binary.BigEndian.Uint32(command[10:]))
	case (makesObject(cc) || cc == ccStartAuthSession) && len(response) >= 14:
		handle := binary.BigEndian.Uint32(response[10:])
		// A handle that was in use: the TPM was reset meanwhile, and would
		// take one key for another.
		if slices.ContainsFunc(r.resident, func(o *object) bool { return o.handle == handle }) {
			r.forgetObjects()
		}
		if slices.ContainsFunc(r.sessions, func(s *session) bool { return s.handle == handle }) {
			r.forgetSessions()
		}
		r.fresh[handle] = true
	}
}

// keep makes a loaded key one that stays loaded after the operation under way.
func (r *resources) keep(o *object, handle uint32) {
	delete(r.fresh, handle)
	o.handle, o.pinned = handle, true
	r.resident = append(r.resident, o)
}

// touch makes a loaded key the one that was used last.
func (r *resources) touch(o *object) {
	o.pinned = true
	if i := slices.Index(r.resident, o); i != len(r.resident)-1 {
		r.resident = append(slices.Delete(r.resident, i, i+1), o)
	}
}

// evict flushes the loaded key that was not used for longest.
func (r *resources) evict() bool {
	for _, o := range r.resident {
		if !o.pinned && o.persistent == 0 {
			r.unload(o)
			return true
		}
	}
	return false
}

// unload flushes a key, if it is loaded.
func (r *resources) unload(o *object) {
	i := slices.Index(r.resident, o)
	if i < 0 {
		return
	}
	r.resident = slices.Delete(r.resident, i, i+1)
	handle := o.handle
	o.handle, o.pinned = 0, false
	if o.persistent == 0 {
		r.flush(handle)
	}
}

// drop takes a key out of the TPM, and those that were loaded for its sake.
func (r *resources) drop(o *object) {
	for ; o.parent != nil; o = o.parent {
		r.unload(o)
	}
}

// keepSession makes a session one that lasts beyond the operation under way.
func (r *resources) keepSession(s *session) {
	delete(r.fresh, s.handle)
	r.sessions = append(r.sessions, s)
}

// running finds the session that is salted with a storage key, or nil.
func (r *resources) running(salt *object) *session {
	i := slices.IndexFunc(r.sessions, func(s *session) bool { return s.salt == salt })
	if i < 0 {
		return nil
	}
	s := r.sessions[i]
	r.sessions = append(slices.Delete(r.sessions, i, i+1), s)
	return s
}

func (r *resources) dropSession(s *session) {
	i := slices.Index(r.sessions, s)
	if i < 0 {
		return
	}
	r.sessions = slices.Delete(r.sessions, i, i+1)
	handle := s.handle
	s.end()
	r.flush(handle)
}

// endSession ends the session that was not used for longest.
func (r *resources) endSession() bool {
	if len(r.sessions) == 0 {
		return false
	}
	r.dropSession(r.sessions[0])
	return true
}

// endOperation flushes what an operation loaded or started and did not flush, and
// what was decrypted for it is no longer in memory.
func (r *resources) endOperation() {
	for handle := range r.fresh {
		r.flush(handle)
	}
	clear(r.fresh)
	clear(r.connection.buffer)
	for _, o := range r.resident {
		o.pinned = false
	}
}

// discard takes everything out of the TPM. After a reset there is nothing, and
// each of the commands fails.
func (r *resources) discard() {
	for handle := range r.fresh {
		r.flush(handle)
	}
	for _, o := range r.resident {
		if o.persistent == 0 {
			r.flush(o.handle)
		}
	}
	for _, s := range r.sessions {
		r.flush(s.handle)
	}
	r.forget()
}

// lose gives a broken connection up. Everything that was loaded is forgotten.
func (r *resources) lose() {
	r.forget()
	r.connection.close()
}

// forget takes note that nothing is loaded any more.
func (r *resources) forget() {
	r.forgetObjects()
	r.forgetSessions()
	clear(r.fresh)
}

func (r *resources) forgetObjects() {
	for _, o := range r.resident {
		o.handle, o.pinned = 0, false
	}
	r.resident = r.resident[:0]
}

func (r *resources) forgetSessions() {
	for _, s := range r.sessions {
		s.end()
	}
	r.sessions = r.sessions[:0]
}

// flush sends TPM2_FlushContext. There is nothing to do if it fails.
func (r *resources) flush(handle uint32) {
	if !r.connection.isOpen() || handle == 0 {
		return
	}
	r.send(packet(ccFlushContext, binary.BigEndian.AppendUint32(nil, handle)))
}

// A link is the TPM as Do lends it: a transport.TPM.
type link struct{ resources *resources }

// Send sends one command and returns the response, whatever its code.
func (l *link) Send(command []byte) ([]byte, error) {
	if l.resources == nil {
		return nil, errors.New("tpm: the TPM was used after its turn")
	}
	if len(command) < 10 {
		return nil, fmt.Errorf("tpm: command of %d bytes", len(command))
	}
	response, err := l.resources.send(command)
	return slices.Clone(response), err
}

// packet is a command without sessions.
func packet(cc uint32, rest []byte) []byte {
	b := []byte{0x80, 0x01, 0, 0, 0, byte(10 + len(rest))} // TPM_ST_NO_SESSIONS
	return append(binary.BigEndian.AppendUint32(b, cc), rest...)
}

// code is the TPM_RC of a response.
func code(response []byte) uint32 { return binary.BigEndian.Uint32(response[6:]) }
