package hsm

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"
)

// A Quirk is behavior of a module that differs from PKCS #11, or that PKCS #11 leaves open,
// and how it is handled. docs/hsm.md has the table.
type Quirk struct {
	Modules string // known to have it
	Does    string
	Done    string
	Codes   []string // the codes that show it: CKR_…
}

// A quirk is the place of one in the table.
type quirk int

const (
	quirkUnknownAttribute quirk = iota
	quirkVagueAttribute
	quirkUntold
	quirkLongData
	quirkLogin
	quirkParameters
	quirkSessions
	quirkWrap
	quirkTemplate
	quirkDigest
	quirkLast
	quirkRepeat
	quirkReadable
	quirkGuess
	quirkPoint
	quirkLists
	quirkHandles
	quirkDead
	quirkPadding
	quirkPaddedWrap
	quirkNumbers
	quirkTokenOnly
)

// noQuirk is none.
const noQuirk quirk = -1

// has reports whether an answer of a module is of the quirk.
func (q quirk) has(code uint) bool {
	return q != noQuirk && slices.Contains(quirkTable()[q].codes, code)
}

// is reports whether an error is an answer of the quirk.
func (q quirk) is(err error) bool {
	if err == nil {
		return false
	}
	var e *Error
	return errors.As(err, &e) && e.garbage == "" && !e.stale && q.has(e.Code)
}

// A quirkRow is a Quirk with the codes as numbers.
type quirkRow struct {
	modules, does, done string
	codes               []uint
}

// quirkTable has every special treatment of modules. It depends only on what a module does,
// never on its name or version.
func quirkTable() []quirkRow {
	return []quirkRow{
		quirkUnknownAttribute: {"openCryptoki, AWS CloudHSM", "does not know an optional attribute of a new key", "the key is made without as few of them as the module needs, which the log names; a weakness that comes of it has to be allowed",
			[]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_TEMPLATE_INCONSISTENT}},
		quirkVagueAttribute: {"NSS softokn", "does not say that an attribute is what it refuses", "the same, if the device works otherwise, and refuses the whole template again afterwards",
			[]uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY}},
		quirkUntold: {"all", "does not know or tell an attribute that is read with others", "the others count; what every object has is asked for once more, alone",
			[]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_BUFFER_TOO_SMALL}},
		quirkLongData: {"AWS CloudHSM (16 KiB)", "takes no more than so many bytes in a call", "AES-CBC is done in several calls, and a MAC in several parts; the limit is kept for the next data",
			[]uint{pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY}},
		quirkLogin: {"SoftHSM2", "shows no token, or one without a PIN, while another process logs in", "opening a token is tried again for a moment",
			[]uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_DEVICE_ERROR}},
		quirkParameters: {"NSS softokn", "wants a text from C_Initialize", "`keystore.initialize`; the error of a module without it says so",
			[]uint{pkcs11.CKR_ARGUMENTS_BAD}},
		quirkSessions: {"openCryptoki", "tells one less than CK_UNAVAILABLE_INFORMATION as the number of sessions", "it counts as no limit, as do CK_EFFECTIVELY_INFINITE and CK_UNAVAILABLE_INFORMATION", nil},
		quirkWrap: {"all", "refuses to let a key out in two ways", "each proves that it stays",
			[]uint{pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_KEY_NOT_WRAPPABLE}},
		quirkTemplate: {"all", "refuses what a CKA_UNWRAP_TEMPLATE forbids in several ways", "each proves that it is forbidden; of any other answer only that it comes again after an allowed key was unwrapped",
			[]uint{pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY}},
		quirkDigest: {"all", "refuses C_DigestKey in several ways", "each counts as no",
			[]uint{pkcs11.CKR_KEY_INDIGESTIBLE, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE}},
		quirkLast:       {"SoftHSM2", "takes no attribute that follows CKA_MODIFIABLE", "that one is last in every template", nil},
		quirkRepeat:     {"SoftHSM2", "wants to be told again what a CKA_UNWRAP_TEMPLATE lists", "every template for unwrapping repeats it", nil},
		quirkReadable:   {"openCryptoki", "unwraps a key readable, although the template says otherwise", "the attributes of each new key are read back; it is repaired, or else destroyed and refused", nil},
		quirkGuess:      {"SoftHSM2", "answers CKR_GENERAL_ERROR where data does not open, as a broken device does", "the same is done with good data before the data or the device is blamed", nil},
		quirkPoint:      {"several", "tells CKA_EC_POINT without the OCTET STRING around it", "both forms are read", nil},
		quirkLists:      {"p11-kit-proxy, p11-kit-client", "returns a function list with a state of its own each time", "C_GetFunctionList is called once", nil},
		quirkHandles:    {"SoftHSM2", "gives out the handles of other objects again after C_Finalize", "a handle counts only in the life of the sessions in which it was found", nil},
		quirkDead:       {"YubiHSM 2", "has a dead session until C_Finalize, whatever is opened anew", "a recovery that does not last is followed by C_Finalize and C_Initialize", nil},
		quirkPadding:    {"openCryptoki and others", "does not see a wrong padding", "CKM_AES_CBC_PAD is not used for data: padding is put on and taken off in the process", nil},
		quirkPaddedWrap: {"AWS CloudHSM Client SDK 3", "pads CKM_AES_KEY_WRAP", "a form that wraps to another length than its own is not used", nil},
		quirkNumbers:    {"NSS softokn", "tells a number only if the room for it is no longer than that", "numbers are read so", nil},
		quirkTokenOnly: {"YubiHSM 2, Google Cloud KMS", "makes no objects of the session", "session keys are in memory with `keystore.session-keys`, and without it a server is refused, with a line that says so; key pairs work if each check that cannot be tried is allowed by name",
			[]uint{pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID}},
	}
}

// Quirks returns all rows of the table.
func Quirks() []Quirk {
	var all []Quirk
	for _, r := range quirkTable() {
		q := Quirk{Modules: r.modules, Does: r.does, Done: r.done}
		for _, code := range r.codes {
			q.Codes = append(q.Codes, codeName(code))
		}
		all = append(all, q)
	}
	return all
}
