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
	quirkMemory
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
	quirkExponent
	quirkSignals
	quirkLists
	quirkHandles
	quirkDead
	quirkPadding
	quirkPaddedWrap
	quirkNumbers
	quirkTokenOnly
)

// noQuirk means that a module has no quirk.
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
		quirkUnknownAttribute: {"openCryptoki, AWS CloudHSM", "does not know an optional attribute of a new key", "the key is made without it; as few attributes as possible are omitted, and the log names them. A weakness that results must be allowed",
			[]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_TEMPLATE_INCONSISTENT}},
		quirkVagueAttribute: {"NSS softokn", "does not say that it refuses the template because of an attribute", "the same, if the device otherwise works and afterwards refuses the complete template again",
			[]uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY}},
		quirkUntold: {"all", "does not know or does not reveal an attribute that is read together with others", "the others are used; attributes that every object has are read again individually",
			[]uint{pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_BUFFER_TOO_SMALL}},
		quirkLongData: {"AWS CloudHSM (16 KiB)", "limits the number of bytes per call", "AES-CBC is done in several calls, and a MAC in several parts; the limit is remembered",
			[]uint{pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY}},
		quirkLogin: {"SoftHSM2", "shows no token, or one without a PIN, while another process logs in", "opening the token is retried for a moment",
			[]uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_DEVICE_ERROR}},
		quirkMemory: {"cloud HSMs", "is out of memory now and then", "opening the token is retried for a moment, and an operation on another session",
			[]uint{pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY}},
		quirkParameters: {"NSS softokn", "requires a string in C_Initialize", "`keystore.initialize` sets it; the error says so if it is missing",
			[]uint{pkcs11.CKR_ARGUMENTS_BAD}},
		quirkSessions: {"openCryptoki", "reports CK_UNAVAILABLE_INFORMATION minus one as the number of sessions", "this means no limit, as do CK_EFFECTIVELY_INFINITE and CK_UNAVAILABLE_INFORMATION", nil},
		quirkWrap: {"all", "has two ways to refuse to export a key", "either proves that the key cannot leave",
			[]uint{pkcs11.CKR_KEY_UNEXTRACTABLE, pkcs11.CKR_KEY_NOT_WRAPPABLE}},
		quirkTemplate: {"all", "has several ways to refuse what a CKA_UNWRAP_TEMPLATE forbids", "each proves that it is forbidden; any other error proves it only if it occurs again after an allowed key was unwrapped",
			[]uint{pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_READ_ONLY}},
		quirkDigest: {"all", "has several ways to refuse C_DigestKey", "each counts as a refusal",
			[]uint{pkcs11.CKR_KEY_INDIGESTIBLE, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE}},
		quirkLast:       {"SoftHSM2", "accepts no attribute after CKA_MODIFIABLE", "that attribute is last in every template", nil},
		quirkRepeat:     {"SoftHSM2", "requires the attributes of a CKA_UNWRAP_TEMPLATE to be given again", "every template for unwrapping repeats them", nil},
		quirkReadable:   {"openCryptoki", "makes an unwrapped key readable although the template says otherwise", "the attributes of each new key are read back; the key is repaired, or else destroyed and refused", nil},
		quirkGuess:      {"SoftHSM2", "returns CKR_GENERAL_ERROR for data that cannot be decrypted, as a broken device does", "the same operation is tried with good data to find out whether the data or the device is at fault", nil},
		quirkPoint:      {"several", "returns CKA_EC_POINT without the enclosing OCTET STRING", "both forms are read", nil},
		quirkExponent:   {"several", "does not report CKA_PUBLIC_EXPONENT of a private key", "it is read from the public key beside it", nil},
		quirkSignals:    {"several", "takes SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE or SIGURG for itself when it is loaded or initialized", "the program takes them back after both", nil},
		quirkLists:      {"p11-kit-proxy, p11-kit-client", "returns a function list with separate state on each call", "C_GetFunctionList is called once", nil},
		quirkHandles:    {"SoftHSM2", "reuses the handles of other objects after C_Finalize", "a handle is valid only during the lifetime of the sessions in which it was found", nil},
		quirkDead:       {"YubiHSM 2", "keeps a dead session until C_Finalize, even if new sessions are opened", "if a recovery does not last, C_Finalize and C_Initialize follow", nil},
		quirkPadding:    {"openCryptoki and others", "does not detect wrong padding", "CKM_AES_CBC_PAD is not used for data: the process adds and removes the padding", nil},
		quirkPaddedWrap: {"AWS CloudHSM Client SDK 3", "adds padding in CKM_AES_KEY_WRAP", "a form whose output does not have the expected length is not used", nil},
		quirkNumbers:    {"NSS softokn", "returns a number only if the buffer is no longer than the number", "numbers are read with such a buffer", nil},
		quirkTokenOnly: {"YubiHSM 2, Google Cloud KMS", "makes no session objects", "with `keystore.session-keys`, session keys are in memory; without it, a server is refused with a line that says so. Key pairs work if each check that cannot be tried is allowed by name",
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
