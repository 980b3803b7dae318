package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Passwords say where the passwords of a TPM's hierarchies come from: file:PATH, fd:N,
// credential:NAME, prompt or env:NAME. A source is read when a command first needs the
// password, and not at all if the hierarchy has none. A password has 1 to 64 bytes
// without a zero byte, and is sent only in a session that hides it.
//
// The owner's password is for making the storage key, persistent keys and counters, the
// endorsement password for enrolling, and the lockout password for [Device.ResetLockout].
type Passwords struct {
	Owner, Endorsement, Lockout string
}

const maxPassword = 64 // bytes: the largest digest of a TPM

// A hierarchy is one that can have a password, with the bits that report its state in
// TPM_PT_PERMANENT and TPM_PT_STARTUP_CLEAR (TPM 2.0 Library, Part 2, clauses 8.6 and
// 8.7).
type hierarchy struct {
	handle   uint32
	name     string
	hasAuth  uint32
	switched uint32 // the bit set while it is enabled; 0: always enabled
	source   string
}

func (p *Passwords) hierarchy(handle uint32) hierarchy {
	switch tpm2.TPMHandle(handle) {
	case tpm2.TPMRHEndorsement:
		return hierarchy{handle, "endorsement", 1 << 1, 1 << 2, p.Endorsement}
	case tpm2.TPMRHLockout:
		return hierarchy{handle, "lockout", 1 << 2, 0, p.Lockout}
	}
	return hierarchy{handle, "owner", 1 << 0, 1 << 1, p.Owner}
}

// A PasswordError says that a hierarchy of the TPM has an unknown password. It is
// [keystore.ErrPIN].
type PasswordError struct {
	Hierarchy string // owner, endorsement or lockout
	Err       error  // the TPM's error for the given password, or nil if none was given
	Remedy    string // what makes the TPM take a password again, if it takes none now
}

// Error names the hierarchy and the TPM's answer.
func (e *PasswordError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("tpm: the TPM's %s hierarchy has a password, but none was given", e.Hierarchy)
	}
	text := fmt.Sprintf("tpm: the password of the TPM's %s hierarchy is wrong, and was not tried again: %s", e.Hierarchy, codeName(e.Err))
	if errors.Is(e.Err, tpm2.TPMRCLockout) {
		text = fmt.Sprintf("tpm: the password of the TPM's %s hierarchy was wrong before, so the TPM accepts none: %s", e.Hierarchy, codeName(e.Err))
	}
	if e.Remedy != "" {
		text += ": before the next try, " + e.Remedy
	}
	return text
}

// Unwrap returns [keystore.ErrPIN], and the error of the TPM if there is one.
func (e *PasswordError) Unwrap() []error {
	if e.Err == nil {
		return []error{keystore.NoPINf("none was given")}
	}
	return []error{keystore.ErrPIN, e.Err}
}

// An offError says that a hierarchy is disabled, with all its keys.
type offError struct{ hierarchy string }

func (e *offError) Error() string {
	return fmt.Sprintf("tpm: the TPM's %s hierarchy is disabled: restart the machine, and if that does not help, enable it in the firmware: %v", e.hierarchy, keystore.ErrUnavailable)
}

func (e *offError) Unwrap() error { return keystore.ErrUnavailable }

// codeName returns the command and the code of an Error without its advice.
func codeName(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.name()
	}
	return err.Error()
}

// SetPasswords sets the sources of the passwords that later operations may need.
func (d *Device) SetPasswords(p Passwords) error {
	for _, source := range []string{p.Owner, p.Endorsement, p.Lockout} {
		if _, err := secret.Parse(source); source != "" && err != nil {
			return fmt.Errorf("tpm: source of a password: %w", err)
		}
	}
	return d.Do(func(transport.TPM) error {
		d.tpm.hierarchies.forget()
		d.tpm.hierarchies = hierarchies{Passwords: p, known: map[uint32]*lockedmem.Buffer{}}
		return nil
	})
}

// Hierarchies are those of a TPM, with the passwords read so far.
type hierarchies struct {
	Passwords
	known map[uint32]*lockedmem.Buffer
}

func (p *hierarchies) forget() {
	for _, b := range p.known {
		b.Close()
	}
	clear(p.known)
}

// enter returns a hierarchy with its password, after checking that it is enabled and
// whether it has one.
func (p *hierarchies) enter(t transport.TPM, handle uint32) (entity, error) {
	h := p.hierarchy(handle)
	e := entity{handle: handle, name: binary.BigEndian.AppendUint32(nil, handle)}
	permanent, started, err := hierarchyBits(t)
	switch {
	case err != nil:
		return e, err
	case h.switched&^started != 0:
		return e, &offError{h.name}
	case permanent&h.hasAuth == 0:
		return e, nil
	case h.source == "":
		return e, &PasswordError{Hierarchy: h.name}
	}
	password, err := p.read(h)
	e.auth = password.Bytes()
	return e, err
}

// hierarchyBits reads TPM_PT_PERMANENT and TPM_PT_STARTUP_CLEAR.
func hierarchyBits(t transport.TPM) (permanent, started uint32, err error) {
	const ptPermanent = 0x200 // the other one follows it
	items, err := capability(t, tpm2.TPMCapTPMProperties, ptPermanent, 2, 8)
	if err != nil {
		return 0, 0, err
	}
	if len(items) != 2 || binary.BigEndian.Uint32(items[0]) != ptPermanent || binary.BigEndian.Uint32(items[1]) != ptPermanent+1 {
		return 0, 0, fmt.Errorf("tpm: TPM2_GetCapability: %w", errAnswer())
	}
	return binary.BigEndian.Uint32(items[0][4:]), binary.BigEndian.Uint32(items[1][4:]), nil
}

// read reads a password, unless it was read before.
func (p *hierarchies) read(h hierarchy) (*lockedmem.Buffer, error) {
	if b := p.known[h.handle]; b != nil {
		return b, nil
	}
	what := "password of the TPM's " + h.name + " hierarchy"
	b, err := secret.Source(h.source).Read(what, maxPassword)
	if err == nil && slices.Contains(b.Bytes(), 0) {
		b.Close()
		err = fmt.Errorf("it has a zero byte: give that hierarchy another one, with tpm2_changeauth -c %s -p file:OLD file:NEW, where OLD has hex: and the bytes of this one in hexadecimal", h.name[:1])
	}
	if err != nil {
		return nil, keystore.NoPINf("tpm: cannot read the %s: %w", what, err)
	}
	p.known[h.handle] = b
	return b, nil
}

// runAs runs a command that a hierarchy authorizes, which becomes its first handle.
func (x *executor) runAs(handle uint32, c command) (response, error) {
	e, err := x.hierarchies.enter(&link{x.resources, x}, handle)
	if err != nil {
		return response{}, err
	}
	c.handles = append([]entity{e}, c.handles...)
	c.password = len(e.auth) == 0
	if !c.password {
		salt, err := x.salt()
		if err != nil {
			return response{}, err
		}
		if c.session, err = x.startSession(salt); err != nil {
			return response{}, err
		}
		defer func(s *session) {
			x.resources.flush(s.handle)
			s.end()
		}(c.session)
	}
	r, err := x.run(c)
	r.params = slices.Clone(r.params) // the session is flushed before the caller looks at it
	return r, x.hierarchies.refused(handle, err)
}

// refused distinguishes a wrong password of a hierarchy from other errors.
func (p *Passwords) refused(handle uint32, err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return &PasswordError{Hierarchy: p.hierarchy(handle).name, Err: err}
	}
	return err
}

// salt returns a key with which sessions can be salted: a loaded storage key, checked to
// still exist if another program could have removed it, or else a key of the null
// hierarchy, which has no password, for the current operation.
func (x *executor) salt() (*object, error) {
	for _, o := range x.roots {
		if o.handle == 0 { // since the last connection
			if at, err := x.whereIs(o); err == nil {
				o.persistent = at
				x.resources.keep(o, at)
			}
		}
		if o.handle != 0 && (o.persistent == 0 || isAt(x, o.persistent, o.name)) {
			x.resources.touch(o)
			return o, nil
		}
	}
	if x.null != nil && x.resources.fresh[x.null.handle] {
		return x.null, nil
	}
	null := entity{handle: handleNull, name: binary.BigEndian.AppendUint32(nil, handleNull)}
	r, err := x.run(command{code: ccCreatePrimary, handles: []entity{null}, password: true, params: primaryParams(tpm2.Marshal(tpm2.ECCSRKTemplate)), makes: true})
	if err != nil {
		return nil, err
	}
	public, _, ok := cut16(r.params)
	if !ok {
		return nil, fmt.Errorf("tpm: TPM2_CreatePrimary: %w", errAnswer())
	}
	x.null = newObject(nil, slices.Clone(public), nil)
	x.null.handle = r.handle
	return x.null, nil
}

// isAt reports whether the key with a Name is at a handle. An error counts as no: another
// key will do.
func isAt(x *executor, handle uint32, name []byte) bool {
	_, found, err := x.readPublic(handle)
	return err == nil && bytes.Equal(found, name)
}

// Hierarchy returns a hierarchy with its authorization, for one go-tpm command inside
// [Device.Do], with the transport that it passes. The error is a [PasswordError] if the
// hierarchy has a password not given with [Device.SetPasswords], and
// [keystore.ErrUnavailable] if the hierarchy is disabled.
func Hierarchy(t transport.TPM, handle tpm2.TPMHandle) (tpm2.AuthHandle, error) {
	open := tpm2.AuthHandle{Handle: handle, Auth: tpm2.PasswordAuth(nil)}
	l, ok := t.(*link)
	if !ok || l.executor == nil {
		return open, nil
	}
	e, err := l.executor.hierarchies.enter(t, uint32(handle))
	if err != nil || len(e.auth) == 0 {
		return open, err
	}
	salt, err := l.executor.salt()
	if err != nil {
		return open, err
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](salt.public)
	if err != nil {
		return open, fmt.Errorf("tpm: storage key: %w: %w", keystore.ErrBadData, err)
	}
	open.Auth = tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(e.auth), tpm2.Salted(tpm2.TPMHandle(salt.handle), *public))
	return open, nil
}

// HierarchyError is [CommandError] for a command that a hierarchy authorized: a wrong
// password is a [PasswordError].
func HierarchyError(command string, handle tpm2.TPMHandle, err error) error {
	return (&Passwords{}).refused(uint32(handle), CommandError(command, err))
}

// ResetLockout resets the dictionary attack counter of the TPM, so that keys with a PIN
// can be used again: TPM2_DictionaryAttackLockReset (TPM 2.0 Library, Part 3, clause
// 25.2). After a wrong lockout password the TPM takes none for a time, which the
// [PasswordError] names.
func (d *Device) ResetLockout() error {
	return d.Do(func(t transport.TPM) error {
		_, err := d.tpm.runAs(uint32(tpm2.TPMRHLockout), command{code: ccDictionaryAttackLockReset})
		if errors.Is(err, tpm2.TPMRCLockout) {
			err = &PasswordError{Hierarchy: "lockout", Err: err}
		}
		var wrong *PasswordError
		if errors.As(err, &wrong) && wrong.Err != nil {
			var errRead error
			if wrong.Remedy, errRead = recovery(t); errRead != nil {
				err = errors.Join(err, errRead)
			}
		}
		return err
	})
}

// recovery says what makes the TPM take a lockout password after a wrong one.
func recovery(t transport.TPM) (string, error) {
	const ptLockoutRecovery = 0x211 // TPM_PT_LOCKOUT_RECOVERY, in seconds
	items, err := capability(t, tpm2.TPMCapTPMProperties, ptLockoutRecovery, 1, 8)
	if err != nil {
		return "", err
	}
	if len(items) != 1 || binary.BigEndian.Uint32(items[0]) != ptLockoutRecovery {
		return "", fmt.Errorf("tpm: TPM2_GetCapability: %w", errAnswer())
	}
	seconds := binary.BigEndian.Uint32(items[0][4:])
	if seconds == 0 {
		return "restart the machine", nil
	}
	return fmt.Sprintf("leave the machine on for %v", time.Duration(seconds)*time.Second), nil
}
