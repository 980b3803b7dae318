package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

const maxLoaded = 3 // objects, and as many sessions: what every TPM and every kernel can hold

// Resources manage a TPM's limited room for objects and sessions: they send every
// command, keep track of what is loaded, and flush the least recently used to make room.
// The TCG calls this layer a resource manager.
type resources struct {
	connection connection
	exclusive  bool // no other program uses the TPM meanwhile, and nothing cleans up after this one
	began      bool // it was connected before

	fresh    map[uint32]bool // handles of objects and sessions of the current operation
	resident []*object       // loaded keys, least recently used first
	sessions []*session      // likewise
}

// connect connects, and cleans up a TPM that no other program uses meanwhile.
func (r *resources) connect() error {
	if err := r.connection.open(); err != nil {
		return err
	}
	if r.exclusive {
		return r.tidy()
	}
	return nil
}

// tidy flushes what killed processes left in the TPM: after a few of them there would be
// no room for a session until a reset. Saved sessions it flushes only at first: some programs, and
// the resource manager of /dev/tpmrm0, load them again in their next turn. It ignores errors, which
// the current operation will also encounter.
func (r *resources) tidy() error {
	kinds := []uint32{0x80000000, 0x02000000, 0x03000000} // objects, sessions, saved sessions
	if r.began {
		kinds = kinds[:2]
	}
	for _, first := range kinds {
		items, err := capability(&link{r, nil}, tpm2.TPMCapHandles, first, 254, 4)
		if !r.connection.isOpen() {
			return err
		}
		for _, item := range items {
			r.flush(binary.BigEndian.Uint32(item))
		}
	}
	r.began = true
	return nil
}

// send sends a command, repeats it while the TPM asks for that, and keeps track of
// what is loaded. The response is valid until the next command.
func (r *resources) send(command []byte) ([]byte, error) {
	cc := binary.BigEndian.Uint32(command[6:])
	r.makeRoom(cc)
	var start time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		response, err := r.exchange(cc, command)
		if err != nil {
			r.lose()
			refused, unanswered := (*Error)(nil), (*linkError)(nil)
			if errors.As(err, &refused) || errors.As(err, &unanswered) { // TPM2_Startup
				return nil, err
			}
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

// exchange sends a command, and again after TPM2_Startup if the TPM was power-cycled.
func (r *resources) exchange(cc uint32, command []byte) ([]byte, error) {
	response, err := r.connection.exchange(command)
	if err != nil || tpm2.TPMRC(code(response)) != tpm2.TPMRCInitialize || cc == ccStartup {
		return response, err
	}
	if err := r.startup(); err != nil {
		return nil, err
	}
	return r.connection.exchange(command)
}

// startup starts a TPM that was power-cycled, and has therefore lost what was loaded. Another
// program may be faster: TPM_RC_INITIALIZE is also the answer of a TPM that was started.
func (r *resources) startup() error {
	r.forget()
	response, err := r.send(packet(ccStartup, []byte{0, 0})) // TPM_SU_CLEAR
	if err != nil {
		return err
	}
	if c := tpm2.TPMRC(code(response)); c != tpm2.TPMRCSuccess && c != tpm2.TPMRCInitialize {
		return &Error{Command: commandName(ccStartup), Code: c}
	}
	return nil
}

// makeRoom flushes keys or sessions before a command that needs room for one more.
// Linux does not report that there is no room: it breaks the connection.
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

// track records the handle that a command made or flushed.
func (r *resources) track(cc uint32, command, response []byte) {
	switch {
	case (cc == ccFlushContext || cc == ccSequenceComplete) && len(command) >= 14:
		delete(r.fresh, binary.BigEndian.Uint32(command[10:]))
	case (makesObject(cc) || cc == ccStartAuthSession) && len(response) >= 14:
		handle := binary.BigEndian.Uint32(response[10:])
		// If the handle is in use, the TPM was reset in the meantime, and the keys known
		// here could be mistaken for others.
		if slices.ContainsFunc(r.resident, func(o *object) bool { return o.handle == handle }) {
			r.forgetObjects()
		}
		if slices.ContainsFunc(r.sessions, func(s *session) bool { return s.handle == handle }) {
			r.forgetSessions()
		}
		r.fresh[handle] = true
	}
}

// keep lets a key stay loaded after the current operation.
func (r *resources) keep(o *object, handle uint32) {
	delete(r.fresh, handle)
	o.handle, o.pinned = handle, true
	r.resident = append(r.resident, o)
}

// touch makes a loaded key the most recently used one.
func (r *resources) touch(o *object) {
	o.pinned = true
	if i := slices.Index(r.resident, o); i != len(r.resident)-1 {
		r.resident = append(slices.Delete(r.resident, i, i+1), o)
	}
}

// evict flushes the least recently used key, and reports whether there was one.
func (r *resources) evict() bool {
	for _, roots := range []bool{false, true} { // a storage key last, since it takes long to make again
		for _, o := range r.resident {
			if !o.pinned && o.persistent == 0 && (o.parent == nil) == roots {
				r.unload(o)
				return true
			}
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

// drop flushes a key and those above it, up to but not including the storage key.
func (r *resources) drop(o *object) {
	for ; o.parent != nil; o = o.parent {
		r.unload(o)
	}
}

// keepSession lets a session outlast the current operation.
func (r *resources) keepSession(s *session) {
	delete(r.fresh, s.handle)
	r.sessions = append(r.sessions, s)
}

// running returns the session salted with a storage key, or nil.
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

// endSession ends the least recently used session, and reports whether there was one.
func (r *resources) endSession() bool {
	if len(r.sessions) == 0 {
		return false
	}
	r.dropSession(r.sessions[0])
	return true
}

// endOperation flushes what an operation loaded or started and did not flush, and
// erases the last response, which may hold decrypted data.
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

// discard flushes everything. After a reset nothing is loaded, and each command fails
// harmlessly.
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

// lose gives up a broken connection, and forgets what was loaded.
func (r *resources) lose() {
	r.forget()
	r.connection.close()
}

// forget records that nothing is loaded anymore.
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

// flush sends TPM2_FlushContext. If it fails, there is nothing to flush.
func (r *resources) flush(handle uint32) {
	if !r.connection.isOpen() || handle == 0 {
		return
	}
	r.send(packet(ccFlushContext, binary.BigEndian.AppendUint32(nil, handle)))
}

// A link is the transport.TPM that Do passes to its function.
type link struct {
	resources *resources
	executor  *executor // nil during tidy
}

// Send sends one command and returns the response, whatever its response code.
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

// packet writes a command without sessions.
func packet(cc uint32, rest []byte) []byte {
	b := []byte{0x80, 0x01, 0, 0, 0, byte(10 + len(rest))} // TPM_ST_NO_SESSIONS
	return append(binary.BigEndian.AppendUint32(b, cc), rest...)
}

// code is the TPM_RC of a response.
func code(response []byte) uint32 { return binary.BigEndian.Uint32(response[6:]) }
