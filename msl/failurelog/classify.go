package failurelog

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// causeTable lists the errors of package keystore that are worth a report, and what
// kind of failure each is. A closed store is not listed: the application closed it
// itself.
var causeTable = []struct {
	err  error
	name string
	kind Kind
}{
	{keystore.ErrUnavailable, "unavailable", Device},
	{keystore.ErrBusy, "busy", Device},
	{keystore.ErrPIN, "pin", Device},
	{keystore.ErrLost, "lost", Key},
	{keystore.ErrWeakKey, "weak-key", Key},
	{keystore.ErrForeign, "foreign", Data},
	{keystore.ErrBadData, "bad-data", Data},
	{keystore.ErrLocked, "locked", Key},
	{keystore.ErrWrongKey, "wrong-key", Key},
	{keystore.ErrNotFound, "not-found", Key},
}

// Causes lists the causes that a report may name.
func Causes() []string {
	names := make([]string, len(causeTable))
	for n, c := range causeTable {
		names[n] = c.name
	}
	return names
}

// Classify finds what can be reported about a failure. It reports false if err is not a
// failure of cryptography. Of the texts in err, only names from a fixed list get into
// the incident: functions and return values of PKCS #11, commands and response codes of
// TPMs.
func Classify(err error) (Incident, bool) {
	if err == nil || errors.Is(err, errOwn) {
		return Incident{}, false
	}
	i := Incident{}
	causeKind := i.findCause(err)
	var peer *msl.PeerError
	if i.Peer = errors.As(err, &peer); !i.Peer { // what a peer wrote says nothing about this side
		i.findWords(err)
	}
	i.findCode(err)
	i.findOrigin(err)
	switch codeKind := kindOfCode(i.Code); {
	case causeKind == Device:
		i.Kind = Device
	case codeKind != "":
		i.Kind = codeKind
	case causeKind != "":
		i.Kind = causeKind
	case i.Result != "":
		i.Kind = Device
	}
	return i, i.Kind != ""
}

func (i *Incident) findCause(err error) Kind {
	for _, c := range causeTable {
		if errors.Is(err, c.err) {
			i.Cause = c.name
			return c.kind
		}
	}
	return ""
}

// maxText bounds how much of an error's text is searched.
const maxText = 8 << 10

// findWords takes the first operation and the first result named in the text.
func (i *Incident) findWords(err error) {
	text := err.Error()
	text = text[:min(len(text), maxText)]
	for word := range strings.FieldsFuncSeq(text, notOfName) {
		if i.Operation == "" && operations()[word] {
			i.Operation = word
		}
		if i.Result == "" && results()[word] {
			i.Result = word
		}
	}
}

func notOfName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func (i *Incident) findCode(err error) {
	var code msl.Code
	if errors.As(err, &code) && code.Name() != "" {
		i.Code = code
	}
}

// versioned matches how a provider names a version of a key. The label is quoted, so
// that nothing in it looks like a version.
var versioned = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:hsm|tpm|soft): key "(?:[^"\\]|\\.)*" version (\d{1,5})\b`)
})

// findOrigin finds the provider, and the version of the key, in the errors that a
// provider made itself.
func (i *Incident) findOrigin(err error) {
	switch {
	case strings.HasPrefix(i.Operation, "C_"):
		i.Provider = PKCS11
	case i.Operation != "":
		i.Provider = TPM
	}
	walk(err, maxErrors, func(text string) {
		for prefix, p := range map[string]Provider{"hsm: ": PKCS11, "split: ": PKCS11, "tpm: ": TPM, "soft: ": Software} {
			if i.Provider == "" && strings.HasPrefix(text, prefix) {
				i.Provider = p
			}
		}
		if m := versioned().FindStringSubmatch(text); m != nil && i.KeyVersion == 0 {
			if n, err := strconv.ParseUint(m[1], 10, 16); err == nil {
				i.KeyVersion = uint16(n)
			}
		}
	})
}

// maxErrors bounds how deep errors are unwrapped.
const maxErrors = 32

// walk calls visit with the text of err and of every error in it.
func walk(err error, depth int, visit func(text string)) {
	if err == nil || depth == 0 {
		return
	}
	text := err.Error()
	visit(text[:min(len(text), maxText)])
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), depth-1, visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, depth-1, visit)
		}
	}
}

// kindOfCode returns the kind of failure of a code, or "": revocations, rejections and
// malformed messages are not failures of cryptography.
func kindOfCode(c msl.Code) Kind {
	switch c {
	case msl.ErrMasterTokenIdentityRevoked, msl.ErrMasterTokenRejectedByApp,
		msl.ErrUserIDTokenUserAuthDataMismatch, msl.ErrUserIDTokenRevoked, msl.ErrUserIDTokenRejectedByApp:
		return ""
	case msl.ErrRSAPublicKeyNotFound, msl.ErrRSAPrivateKeyNotFound, msl.ErrECCPublicKeyNotFound, msl.ErrECCPrivateKeyNotFound,
		msl.ErrKeyXPrivateKeyMissing, msl.ErrKeyXPublicKeyMissing, msl.ErrKeyXWrappingKeyMissing, msl.ErrKeyXDerivationKeyMissing:
		return Key
	case msl.ErrEntityAuthMasterTokenNotDecrypted, msl.ErrEntityAuthMasterTokenInvalid:
		return Token
	case msl.ErrEntityAuthSignatureInvalid, msl.ErrEntityAuthCiphertextInvalid, msl.ErrEntityAuthVerificationFailed,
		msl.ErrPayloadVerificationFailed, msl.ErrMessageVerificationFailed,
		msl.ErrMessageEntityDataBasedVerificationFailed, msl.ErrMessageMasterTokenBasedVerificationFailed,
		msl.ErrKeyXInvalidPublicKey, msl.ErrKeyXInvalidWrappingKey,
		msl.ErrKeyXInvalidEncryptionKey, msl.ErrKeyXInvalidHMACKey, msl.ErrKeyXInvalidWrapData:
		return Data
	}
	switch {
	case c > msl.ErrMSLEncodeError && c < msl.ErrMasterTokenUntrusted:
		return Data
	case c >= msl.ErrMasterTokenUntrusted && c < msl.ErrUnidentifiedEntityAuthScheme:
		return Token
	}
	return ""
}
