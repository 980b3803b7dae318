package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

const (
	maxAnswer = 8192 // TPM_PT_MAX_RESPONSE_SIZE is 4096 on what there is
	maxLoaded = 3    // objects, and sessions: what every TPM and every kernel holds
)

// The commands that this package puts together or looks for (TPM 2.0 Library,
// Part 2, clause 6.5.2).
const (
	ccEvictControl     = uint32(tpm2.TPMCCEvictControl)
	ccCreatePrimary    = uint32(tpm2.TPMCCCreatePrimary)
	ccSequenceComplete = uint32(tpm2.TPMCCSequenceComplete)
	ccStartup          = uint32(tpm2.TPMCCStartup)
	ccShutdown         = uint32(tpm2.TPMCCShutdown)
	ccCreate           = uint32(tpm2.TPMCCCreate)
	ccHMAC             = uint32(tpm2.TPMCCMAC)
	ccImport           = uint32(tpm2.TPMCCImport)
	ccLoad             = uint32(tpm2.TPMCCLoad)
	ccRSADecrypt       = uint32(tpm2.TPMCCRSADecrypt)
	ccHMACStart        = uint32(tpm2.TPMCCMACStart)
	ccSequenceUpdate   = uint32(tpm2.TPMCCSequenceUpdate)
	ccSign             = uint32(tpm2.TPMCCSign)
	ccContextLoad      = uint32(tpm2.TPMCCContextLoad)
	ccFlushContext     = uint32(tpm2.TPMCCFlushContext)
	ccLoadExternal     = uint32(tpm2.TPMCCLoadExternal)
	ccReadPublic       = uint32(tpm2.TPMCCReadPublic)
	ccStartAuthSession = uint32(tpm2.TPMCCStartAuthSession)
	ccGetRandom        = uint32(tpm2.TPMCCGetRandom)
	ccGetCapability    = uint32(tpm2.TPMCCGetCapability)
	ccHashSequence     = uint32(tpm2.TPMCCHashSequenceStart)
	ccCreateLoaded     = uint32(tpm2.TPMCCCreateLoaded)
	ccEncryptDecrypt2  = uint32(tpm2.TPMCCEncryptDecrypt2)
	ccNVDefineSpace    = uint32(tpm2.TPMCCNVDefineSpace)
	ccNVUndefineSpace  = uint32(tpm2.TPMCCNVUndefineSpace)
	ccNVIncrement      = uint32(tpm2.TPMCCNVIncrement)
	ccNVRead           = uint32(tpm2.TPMCCNVRead)
	ccNVReadPublic     = uint32(tpm2.TPMCCNVReadPublic)
)

// A link is the connection as Do lends it: a transport.TPM.
type link struct{ *Device }

// Send sends one command and returns the answer, whatever its code.
func (l *link) Send(command []byte) ([]byte, error) {
	if l.Device == nil {
		return nil, errors.New("tpm: the TPM was used after its turn")
	}
	if len(command) < 10 {
		return nil, fmt.Errorf("tpm: command of %d bytes", len(command))
	}
	answer, err := l.send(command)
	return slices.Clone(answer), err
}

// send sends one command, and again while the TPM asks for it, and keeps count
// of what is loaded. The answer is good until the next one.
func (d *Device) send(command []byte) ([]byte, error) {
	cc := binary.BigEndian.Uint32(command[6:])
	d.makeRoom(cc)
	var start time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		answer, err := d.exchange(command)
		if err == nil && tpm2.TPMRC(code(answer)) == tpm2.TPMRCInitialize && cc != ccStartup {
			if err = d.startup(); err == nil {
				continue
			}
		}
		if err != nil {
			d.lose()
			return nil, &linkError{command: cc, err: err}
		}
		again := false
		switch tpm2.TPMRC(code(answer)) {
		case tpm2.TPMRCSuccess:
			d.track(cc, command, answer)
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCCanceled:
			if start.IsZero() {
				start = time.Now()
			}
			if again = time.Since(start) < d.timeout; again {
				time.Sleep(wait)
			}
		case tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles:
			again = d.evict()
		case tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles:
			again = d.endSession()
		}
		if !again {
			return answer, nil
		}
	}
}

// startup starts a TPM that was switched off and on. It has forgotten what was
// loaded.
func (d *Device) startup() error {
	d.forget()
	clear(d.made)
	answer, err := d.exchange(packet(ccStartup, []byte{0, 0})) // TPM_SU_CLEAR
	if err == nil && code(answer) != 0 {
		err = &Error{Command: commandName(ccStartup), Code: tpm2.TPMRC(code(answer))}
	}
	return err
}

// exchange writes one command and reads its answer. After an error the
// connection is of no use: a late answer would be taken for the next one.
func (d *Device) exchange(command []byte) ([]byte, error) {
	if d.conn == nil {
		return nil, net.ErrClosed
	}
	if c, ok := d.conn.(interface{ SetDeadline(time.Time) error }); ok {
		if err := c.SetDeadline(time.Now().Add(d.timeout)); err != nil {
			return nil, err
		}
	} else {
		conn := d.conn
		defer time.AfterFunc(d.timeout, func() { conn.Close() }).Stop()
	}
	if _, err := d.conn.Write(command); err != nil {
		return nil, err
	}
	for n := 0; ; {
		m, err := d.conn.Read(d.answers[n:])
		n += m
		if n >= 10 {
			size := int(binary.BigEndian.Uint32(d.answers[2:]))
			if size < 10 || size > maxAnswer || n > size {
				return nil, fmt.Errorf("the answer says it has %d bytes", size)
			}
			if n == size {
				return d.answers[:n], nil
			}
		}
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// makeRoom lets keys and sessions go before a command that makes one more. A
// device of the Linux kernel has no warning: it breaks the connection.
func (d *Device) makeRoom(cc uint32) {
	if makesObject(cc) {
		for d.loaded()+1 > maxLoaded && d.evict() {
		}
	}
	if cc == ccStartAuthSession {
		for d.started()+1 > maxLoaded && d.endSession() {
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
func (d *Device) loaded() (n int) {
	for _, o := range d.resident {
		if o.persistent == 0 {
			n++
		}
	}
	for handle := range d.made {
		if handle>>24 == 0x80 {
			n++
		}
	}
	return n
}

func (d *Device) started() int {
	n := len(d.sessions)
	for handle := range d.made {
		if handle>>24 != 0x80 {
			n++
		}
	}
	return n
}

// track keeps the handles that a command made or ended.
func (d *Device) track(cc uint32, command, answer []byte) {
	switch {
	case cc == ccFlushContext && len(command) >= 14:
		delete(d.made, binary.BigEndian.Uint32(command[10:]))
	case cc == ccSequenceComplete && len(command) >= 14:
		delete(d.made, binary.BigEndian.Uint32(command[10:]))
	case (makesObject(cc) || cc == ccStartAuthSession) && len(answer) >= 14:
		handle := binary.BigEndian.Uint32(answer[10:])
		// A handle that was in use: the TPM was reset meanwhile, and would
		// take one key for another.
		if slices.ContainsFunc(d.resident, func(o *object) bool { return o.handle == handle }) {
			d.forgetObjects()
		}
		if slices.ContainsFunc(d.sessions, func(s *session) bool { return s.handle == handle }) {
			d.forgetSessions()
		}
		d.made[handle] = true
	}
}

// forget takes note that nothing is loaded any more.
func (d *Device) forget() {
	d.forgetObjects()
	d.forgetSessions()
}

func (d *Device) forgetObjects() {
	for _, o := range d.resident {
		o.handle, o.pinned = 0, false
	}
	d.resident = d.resident[:0]
}

func (d *Device) forgetSessions() {
	for _, s := range d.sessions {
		s.end()
	}
	d.sessions = d.sessions[:0]
}

// flush sends TPM2_FlushContext. There is nothing to do if it fails.
func (d *Device) flush(handle uint32) {
	if d.conn == nil || handle == 0 {
		return
	}
	d.send(packet(ccFlushContext, binary.BigEndian.AppendUint32(nil, handle)))
}

// packet is a command without sessions.
func packet(cc uint32, rest []byte) []byte {
	b := []byte{0x80, 0x01, 0, 0, 0, byte(10 + len(rest))} // TPM_ST_NO_SESSIONS
	return append(binary.BigEndian.AppendUint32(b, cc), rest...)
}

// code is the TPM_RC of an answer.
func code(answer []byte) uint32 { return binary.BigEndian.Uint32(answer[6:]) }
