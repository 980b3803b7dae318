package hsmtest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Fault is something that goes wrong with some calls. The first group of fields
// selects the calls. The others say what happens; at least one of them must be set.
type Fault struct {
	// Function is the C_ name; "" or "*" means every function.
	Function string
	// Attribute, if not empty, limits the fault to calls with a template that
	// names one of these CKA_ types.
	Attribute []uint
	// Mechanism, if not empty, limits it to calls that name one of these CKM_
	// types, or go on with an operation that began with one: C_Sign after
	// C_SignInit.
	Mechanism []uint
	// Skip is how many matching calls pass first.
	Skip int
	// Times is how many calls are hit then; 0 means all.
	Times int
	// For is how long the fault lasts from its first hit; 0 means no limit.
	For time.Duration
	// UntilFinalize ends the fault separately in each process: with the first
	// C_Finalize after a hit in that process. A fault of every function does not
	// hit that C_Finalize.
	UntilFinalize bool

	// After lets the real call be made first, so that its effect stays.
	After bool
	// Code is the answer, a CKR_ value.
	Code uint
	// Succeed answers CKR_OK, which Code cannot say. Without After nothing was
	// done, and nothing is written to what the caller passed.
	Succeed bool
	// Delay holds the call up. It comes before a Code of the same fault.
	Delay time.Duration
	// Hang holds the call up until the faults are replaced.
	Hang bool
	// Crash ends the process with SIGSEGV.
	Crash bool
	// Abort ends it with SIGABRT.
	Abort bool

	// Leak is how many bytes of memory each call that is hit takes and never gives back.
	Leak int

	// VanishSessions closes all sessions behind the program's back, so that their
	// handles are CKR_SESSION_HANDLE_INVALID, also for the call that is hit. It
	// waits for calls under way in other threads.
	VanishSessions bool
	// VanishObjects destroys all session objects behind the program's back, and
	// makes the handles of token objects CKR_OBJECT_HANDLE_INVALID until
	// C_FindObjects returns them again.
	VanishObjects bool
	// Removed removes the token labelled Token, or all tokens: C_GetSlotList(TRUE)
	// leaves it out, and calls with its slot answer CKR_TOKEN_NOT_PRESENT. Its
	// sessions are closed, and calls with them answer CKR_DEVICE_REMOVED. The token
	// is back when the fault is over.
	Removed bool
	// Token is the label of the token for Removed and Replace.
	Token string
	// Replace is the label of the token that swaps slots with Token. All sessions
	// on both are closed at that time, and again when the fault is over. Function
	// must be "" or "*".
	Replace string
	// SameLabel makes both slots keep the label that they had before, SameSerial
	// the serial number.
	SameLabel, SameSerial bool

	// Length replaces the output length or count that a function returns, after
	// the real call. With Skip 1 the call that asks for the length passes first. For
	// C_GetAttributeValue it is the length of every attribute, or of those in
	// Attribute. No more memory is written than otherwise.
	Length *uint
	// Garble inverts the first byte of what a function returns with a length or count, after
	// the real call. For C_FindObjects and C_GetSlotList, it is that of the first handle or
	// slot; for C_GetAttributeValue that of every attribute, or of those in Attribute;
	// C_GetObjectSize and C_GenerateRandom are not changed. With Skip 1 a call that only asks
	// for the length passes first.
	Garble bool
	// Told is what C_GetAttributeValue returns for those of Attribute that are a number, or a
	// truth value (0 or 1).
	Told *uint
	// MaxSessions, if not 0, is how many sessions can be open in a process; one
	// more is CKR_SESSION_COUNT. C_GetTokenInfo reports it, unless ToldSessions is
	// set.
	MaxSessions int
	// ToldSessions is the maximum number of sessions that C_GetTokenInfo reports.
	ToldSessions *uint
	// SetFlags and ClearFlags change the flags that C_GetSlotInfo, C_GetTokenInfo and
	// C_GetMechanismInfo return: CKF_ values.
	SetFlags, ClearFlags uint
	// Listed is how many mechanisms C_GetMechanismList returns: those of the real module,
	// again and again. With the Function C_GetSlotList it is how many slots that returns.
	Listed *uint
	// KeySize is the least and the greatest key size that C_GetMechanismInfo returns.
	KeySize *uint
	// WriteProtected makes tokens read-only: C_OpenSession for a session that can write is
	// CKR_TOKEN_WRITE_PROTECTED, and C_GetTokenInfo says so.
	WriteProtected bool
	// MaxPart, if not 0, is how many bytes of data one call accepts; more are
	// CKR_DATA_LEN_RANGE, or Code. It applies to data to encrypt, decrypt, digest, sign or
	// verify, not to wrapped keys.
	MaxPart int
	// MaxFound, if not 0, is how many objects C_FindObjects returns at a time.
	MaxFound int
	// Unknown makes the types of Attribute and Mechanism unknown to the module.
	// Templates with such an attribute are CKR_ATTRIBUTE_TYPE_INVALID, and reads of
	// it return that code and CK_UNAVAILABLE_INFORMATION. Calls with such a
	// mechanism are CKR_MECHANISM_INVALID, and C_GetMechanismList leaves it out.
	Unknown bool
	// As, if not 0, imitates the one mechanism of Mechanism, which the real module does
	// not have, by a mechanism that it has: for C_WrapKey and C_UnwrapKey, and in
	// C_GetMechanismList, C_GetMechanismInfo and CKA_ALLOWED_MECHANISMS. Wrapped
	// data is longer by Pad bytes, up to 16: the beginning of the initialization vector, if
	// there is one. With DrawsIV the module draws that, whatever it is given.
	As      uint
	Pad     int
	DrawsIV bool
	// TokenOnly refuses objects of the session with CKR_TEMPLATE_INCONSISTENT.
	TokenOnly bool
	// OfficerTrusts lets the security officer see the secret keys of the token that
	// C_GenerateKey and C_CopyObject made, and set CKA_TRUSTED of those that have a CKA_ID. The
	// real module is SoftHSM2, which keeps them in a file each, with unencrypted values.
	OfficerTrusts bool
	// FreshList returns a new function list, with an initialized state and sessions
	// of its own, at each C_GetFunctionList; up to 15 in a process.
	FreshList bool

	// Reveal answers reads of Attribute, or of CKA_VALUE, that the real module
	// refuses as sensitive: with as many bytes of 0x5a as CKA_VALUE_LEN says, or 32.
	Reveal bool
	// Ignore makes objects as if their templates did not name Attribute: without
	// the protection of CKA_SENSITIVE, EXTRACTABLE, MODIFIABLE, COPYABLE,
	// DESTROYABLE, WRAP_WITH_TRUSTED and TRUSTED, and without the other attributes.
	Ignore bool
	// Pretend, with Ignore, answers reads of those seven as the template asked for.
	Pretend bool
}

// declared finds the functions, and what their arguments are, in the source of
// the module.
func declared() [][]string {
	header, err := source.ReadFile("module/cryptoki.h")
	if err != nil {
		panic(err) // it is part of the program
	}
	return regexp.MustCompile(`X\(list, (\w+), \d, "([^"]+)"\)`).FindAllStringSubmatch(string(header), -1)
}

// tellsLength reports whether a function returns a length or count, which the
// source marks with #.
func tellsLength(function string) bool {
	return function == "C_GetAttributeValue" || slices.ContainsFunc(declared(), func(d []string) bool {
		return "C_"+d[1] == function && strings.Contains(d[2], "#")
	})
}

// functions lists the names of PKCS #11 v2.40 in the order of its function list.
func functions() []string {
	var names []string
	for _, d := range declared() {
		names = append(names, "C_"+d[1])
	}
	return names
}

// line writes the fault as a line of the control file.
func (f Fault) line() (string, error) {
	function := f.Function
	if function == "" {
		function = "*"
	}
	if function != "*" && !slices.Contains(functions(), function) {
		return "", fmt.Errorf("hsmtest: %q is not a function of PKCS #11 v2.40", f.Function)
	}
	if err := f.check(); err != nil {
		return "", fmt.Errorf("hsmtest: a fault of %s %w", function, err)
	}
	return strings.Join(slices.Concat([]string{function}, f.which(), f.what(), f.how()), " "), nil
}

// check finds what the module would refuse.
func (f Fault) check() error {
	every := f.Function == "" || f.Function == "*"
	switch {
	case min(f.Skip, f.Times, f.Leak, f.MaxSessions, f.MaxPart, f.MaxFound) < 0 || min(f.For, f.Delay) < 0:
		return errors.New("has a negative number")
	case len(f.what()) == 0:
		return errors.New("does nothing: set Code, Delay, Hang or another")
	case max(len(f.Attribute), len(f.Mechanism)) > 32:
		return errors.New("names more than 32 attributes or mechanisms")
	case max(len(f.Token), len(f.Replace)) > 32 || strings.ContainsAny(f.Token+f.Replace, "\"\r\n"):
		return errors.New("has a label longer than 32 bytes, or with a quotation mark or line break")
	case f.As != 0 && (len(f.Mechanism) != 1 || f.Pad < 0 || f.Pad > 16):
		return errors.New("has As without one Mechanism, or with a Pad over 16")
	case f.Unknown && len(f.Attribute)+len(f.Mechanism) == 0:
		return errors.New("has Unknown without Attribute or Mechanism")
	case (f.Ignore || f.Told != nil) && len(f.Attribute) == 0:
		return errors.New("has Ignore or Told without Attribute")
	case f.Replace != "" && (f.Token == "" || !every):
		return errors.New("has Replace without Token, or of one function")
	case (f.Length != nil || f.Garble) && !every && !tellsLength(f.Function):
		return errors.New("has Length or Garble, but the function returns no data")
	}
	return nil
}

// which writes the words that say which calls are hit.
func (f Fault) which() []string {
	var w words
	w.add(len(f.Attribute) > 0, "attribute="+list(f.Attribute))
	w.add(len(f.Mechanism) > 0, "mechanism="+list(f.Mechanism))
	w.add(f.Skip > 0, fmt.Sprintf("skip=%d", f.Skip))
	w.add(f.Times > 0, fmt.Sprintf("times=%d", f.Times))
	w.add(f.For > 0, "for="+duration(f.For))
	w.add(f.UntilFinalize, "until-finalize")
	w.add(f.After, "after")
	w.add(f.Token != "", `token="`+f.Token+`"`)
	return w
}

// what writes the words that say what happens to them.
func (f Fault) what() []string {
	var w words
	w.add(f.Code != 0, fmt.Sprintf("code=%#x", f.Code))
	w.add(f.Succeed, "code=CKR_OK")
	w.add(f.Delay > 0, "delay="+duration(f.Delay))
	w.add(f.Hang, "hang")
	w.add(f.Crash, "crash=segv")
	w.add(f.Abort, "crash=abort")
	w.add(f.Leak > 0, fmt.Sprintf("leak=%d", f.Leak))
	w.add(f.VanishSessions, "vanish-sessions")
	w.add(f.VanishObjects, "vanish-objects")
	w.add(f.Removed, "removed")
	w.add(f.Replace != "", `replace="`+f.Replace+`"`)
	w.add(f.Length != nil, "length="+number(f.Length))
	w.add(f.Garble, "garble")
	w.add(f.Told != nil, "tell="+number(f.Told))
	w.add(f.MaxSessions > 0, fmt.Sprintf("max-sessions=%d", f.MaxSessions))
	w.add(f.ToldSessions != nil, "told-sessions="+number(f.ToldSessions))
	w.add(f.SetFlags != 0, fmt.Sprintf("set-flags=%#x", f.SetFlags))
	w.add(f.ClearFlags != 0, fmt.Sprintf("clear-flags=%#x", f.ClearFlags))
	w.add(f.Listed != nil, "listed="+number(f.Listed))
	w.add(f.KeySize != nil, "key-size="+number(f.KeySize))
	w.add(f.WriteProtected, "write-protected")
	w.add(f.MaxPart > 0, fmt.Sprintf("max-part=%d", f.MaxPart))
	w.add(f.MaxFound > 0, fmt.Sprintf("max-found=%d", f.MaxFound))
	w.add(f.Unknown, "unknown")
	w.add(f.TokenOnly, "token-objects-only")
	w.add(f.OfficerTrusts, "officer-trusts")
	w.add(f.FreshList, "fresh-list")
	w.add(f.Reveal, "reveal")
	w.add(f.Ignore, "ignore")
	w.add(f.As != 0, fmt.Sprintf("as=%#x pad=%d", f.As, f.Pad))
	return w
}

// how writes the words that change what happens.
func (f Fault) how() []string {
	var w words
	w.add(f.SameLabel, "same-label")
	w.add(f.SameSerial, "same-serial")
	w.add(f.Pretend, "pretend")
	w.add(f.DrawsIV, "draws-iv")
	return w
}

func number(n *uint) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

type words []string

func (w *words) add(yes bool, word string) {
	if yes {
		*w = append(*w, word)
	}
}

func list(numbers []uint) string {
	var w []string
	for _, n := range numbers {
		w = append(w, fmt.Sprintf("%#x", n))
	}
	return strings.Join(w, ",")
}

func duration(d time.Duration) string {
	return fmt.Sprintf("%dus", max(d.Microseconds(), 1))
}
