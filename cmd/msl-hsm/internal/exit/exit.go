package exit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// Exit codes, as described in msl-hsm help exit-codes and docs/exit-codes.md.
const (
	Failure  = 1 // the message says why
	Usage    = 2 // wrong usage or configuration
	Refused  = 3 // by the peer
	Keystore = 4 // the key store is not available
	Secret   = 5 // a secret was refused or cannot be read
	NoAnswer = 6 // the server cannot be reached, or did not send a message
	Held     = 7 // a device waits for an operator's decision
	Forced   = 8 // the process was forced to end

	// Untrusted is for a server that did not prove to be the trusted one: another key,
	// identity or certificate, or a signature that does not verify.
	Untrusted = 9

	// Unread is for a command whose output nobody reads anymore: what shells report for a
	// process that SIGPIPE ended.
	Unread = 128 + 13
)

// A codedError is an error with its own exit code.
type codedError struct {
	error
	code int
}

func (c codedError) Unwrap() error { return c.error }

// WithCode gives an error its exit code.
func WithCode(err error, code int) error { return codedError{err, code} }

// Usagef returns an error for wrong usage or configuration.
func Usagef(format string, args ...any) error {
	return WithCode(fmt.Errorf(format, args...), Usage)
}

// OfKind returns an error of a kind, with a text that is all that a user reads: the kind,
// which [errors.Is] finds, adds nothing to it.
func OfKind(kind error, format string, args ...any) error {
	return kindError{fmt.Sprintf(format, args...), kind}
}

type kindError struct {
	text string
	kind error
}

func (k kindError) Error() string { return k.text }
func (k kindError) Unwrap() error { return k.kind }

// Code returns the command's exit code for an error; it is 0 for nil.
func Code(err error) int {
	var own codedError
	var peer *msl.PeerError
	var status *mslhttp.StatusError
	var request *url.Error
	var other *mslhttp.NotMessageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, state.ErrName):
		return Usage
	case errors.As(err, &peer):
		return Refused
	case errors.Is(err, keystore.ErrPIN):
		return Secret
	case errors.Is(err, enroll.ErrPending):
		return Held
	case IsAny(err, enroll.ErrRejected, enroll.ErrRevoked, enroll.ErrKeyRevoked, enroll.ErrPolicy, enroll.ErrEKCertificate, enroll.ErrRenewal):
		return Refused
	case keystoreFailed(err):
		return Keystore
	case untrusted(err):
		return Untrusted
	case errors.As(err, &status), errors.As(err, &request), errors.As(err, &other), notMessage(err):
		return NoAnswer
	}
	return Failure
}

// Unreached reports whether nothing listens where the server should be. A key store
// behind a socket, such as a software TPM, is also dialed, but is not the server.
func Unreached(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial" && !keystoreFailed(err)
}

// notMessage reports whether an answer was not a message, or only part of one.
func notMessage(err error) bool {
	if limit := (*msl.LimitError)(nil); errors.As(err, &limit) {
		return false // the rest of it may be one
	}
	return IsAny(err, msl.ErrNotMessage, msl.ErrTruncated, msl.ErrMSLParseError, msl.ErrMSLCommsFailure, mslhttp.ErrTLSTruncated)
}

func keystoreFailed(err error) bool {
	return IsAny(err,
		keystore.ErrNotFound, keystore.ErrBusy, keystore.ErrClosed, keystore.ErrUnavailable,
		keystore.ErrLost, keystore.ErrWeakKey, keystore.ErrForeign, balanced.ErrDifferent,
		identity.ErrOtherTPM, identity.ErrCleared, identity.ErrNotInitialized, identity.ErrNotEnrolled,
	)
}

// IsAny reports whether an error is one of the given kinds.
func IsAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// OneLine writes joined errors on one line of bounded length, each once, with what to do next.
func OneLine(err error) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(withNextStep(err)), "\n") {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "; ")
	switch {
	case deviceFailed().MatchString(text) && errors.Is(err, errors.ErrUnsupported):
		text += "; the module cannot do that, and its vendor would have to add it: msl-hsm module test shows what it lacks"
	case deviceFailed().MatchString(text) && errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrPIN):
		text += "; the device fails: try again, and if that does not help, check the device and the log of its module"
	case tpmRefused().MatchString(text) && errors.As(err, new(*tpm.Error)) && errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrPIN):
		text += "; the TPM does not accept this: try again, and if that does not help, report this line together with what tpm2_getcap properties-fixed prints"
	case strings.HasSuffix(text, ": permission denied") && errors.Is(err, fs.ErrPermission):
		text += "; run this as the user who owns it, such as that of the server"
	case strings.HasSuffix(text, ": "+syscall.ENOENT.Error()) && errors.As(err, new(*fs.PathError)):
		text += "; correct the path"
	case strings.HasSuffix(text, syscall.EMFILE.Error()) && errors.Is(err, syscall.EMFILE):
		text += "; raise the limit of open files (ulimit -n, LimitNOFILE of systemd)"
	case overlong().MatchString(text):
		text += "; name the right file"
	case strings.HasSuffix(text, "getwd: "+syscall.ENOENT.Error()):
		text += "; the working directory was removed: change to another one"
	case errors.Is(err, syscall.EINVAL) && ofSocket(err):
		text += "; the path of a socket must not exceed 107 bytes: choose a shorter one"
	}
	for reason, next := range fileSystems() {
		if strings.HasSuffix(text, ": "+reason) {
			text += "; " + next
		}
	}
	return shortened(plainly(withoutPackages(text, saidByPeer(err)...), saidByPeer(err)...))
}

// ofSocket reports whether the error is about the path of a socket.
func ofSocket(err error) bool {
	var at *net.OpError
	return errors.As(err, &at) && at.Net == "unix"
}

// fileSystems says what to do about an unreadable file, or a file system that accepts no
// changes, by the end of the error, which may come from a running server.
func fileSystems() map[string]string {
	return map[string]string{
		"no space left on device":             "make room on that disk, and try again",
		"disk quota exceeded":                 "make room in that quota, and try again",
		"not a directory":                     "correct the path",
		"file name too long":                  "shorten the path, or correct it",
		"file too large":                      "raise the limit of its size (ulimit -f, LimitFSIZE of systemd), and try again",
		"input/output error":                  "the disk or device fails: the kernel log says more",
		"stale file handle":                   "mount its file system again",
		"read-only file system":               "mount it for writing; if it became read-only on its own, the kernel log says why",
		"it is not a regular file":            "name one",
		"it is a directory":                   "name a file",
		"is a directory":                      "name a file",
		"it is a socket":                      "name a file",
		"no such device or address":           "name a file, or a pipe whose reader runs",
		"bad file descriptor":                 "it is not open: the program that starts msl-hsm must open it",
		"it is a pipe to which nobody writes": "name a file, or a pipe whose writer runs",
		"too many levels of symbolic links":   "it is a symbolic link to itself: name the file",
		"operation not permitted":             "lsattr shows whether the file is immutable (undo it with chattr -i); the kernel log says whether something else forbids it",
	}
}

// deviceFailed matches an error that ends with a module's answer, or the end of its process,
// and says nothing more.
var deviceFailed = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:\bC_\w+: (?:CKR[_ ]\w+|the module answer(?:ed|s) [^;:]*)|ended before the store was open \([^;)]*\)(?:, while the PIN was given)?|the key store was not open after [\w.]+(?:, while the PIN was given)?|the process of the key store [^;]* and is replaced)(?:: keystore: unavailable)?$`)
})

// overlong matches an error that ends with the size that a file must not have.
var overlong = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`: it has more than \d+ (?:bytes|MiB)$`) })

// tpmRefused matches an error that ends with the code of a TPM, and says nothing more.
var tpmRefused = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\bTPM2_\w+: (?:TPM_RC_\w+|un(?:known|recognized)[\w -]*)(?: \([^();:]*\))?$`)
})

// Closing joins the error of closing something to the error of using it.
func Closing(err *error, c io.Closer) {
	*err = errors.Join(*err, c.Close())
}

// withNextStep adds the next command to type to an error about a device's identity or
// about the records of devices, unless it says that already.
func withNextStep(err error) string {
	text := err.Error()
	for _, s := range []struct {
		kind error
		next string
	}{
		{identity.ErrNotInitialized, "run msl-hsm tpm init"},
		{identity.ErrNotEnrolled, "run msl-hsm tpm enroll"},
		{identity.ErrCleared, "run msl-hsm tpm init and msl-hsm tpm enroll again"},
		{identity.ErrOtherTPM, "if this TPM takes its place, run msl-hsm tpm init --replace"},
		{identity.ErrOtherEK, "add --replace for that"},
		{identity.ErrKeyRevoked, "run msl-hsm tpm init --new-keys and enroll again"},
		{identity.ErrRenewal, "run msl-hsm tpm init --new-keys and enroll again"},
		{state.ErrClockBehind, "correct it; if it is right, and that of a server was ahead, use --keep-tokens, and before a server starts, end the tokens with msl-hsm key rotate, and with msl-hsm key destroy msl-issuer-mac --version N --force --yes for each older version N"},
		{bolt.ErrNoKey, "name it with keystore.uri in the configuration"},
		{identity.ErrDamaged, "restore it, or delete it and run msl-hsm tpm init again, and the device keeps its record"},
	} {
		if errors.Is(err, s.kind) && !strings.Contains(text, "run msl-hsm ") {
			text = strings.Replace(text, s.kind.Error(), s.kind.Error()+": "+s.next, 1)
		}
	}
	index := "0x1804d54"
	if strings.Contains(text, index) { // it is what cannot be used
		index = "0x1804d55"
	}
	text = strings.Replace(text, "choose another index", "choose another index, such as --anti-rollback="+index, 1) + advice(err)
	text = withVerbs(text)
	if strings.Contains(text, "run msl-hsm ") || strings.Contains(text, "add --replace") {
		text = generalAdvice().Replace(text)
	}
	return text
}

// generalAdvice removes what package tpm says to do where a command says it better.
func generalAdvice() *strings.Replacer {
	return strings.NewReplacer(": enroll this device again with a new state file", "", ": enroll this device again", "")
}

// advice is the next command after an error of the TPM itself.
func advice(err error) string {
	var password *tpm.PasswordError
	switch {
	case errors.As(err, &password) && password.Err == nil:
		return fmt.Sprintf(": name its source with --%[1]s-password file:PATH, or %[1]s-password in the section keystore of the configuration", password.Hierarchy)
	case errors.As(err, &password):
		return ""
	case errors.Is(err, tpm2.TPMRCLockout), errors.As(err, new(*tpm.LastTryError)):
		return ": run msl-hsm tpm unlock"
	}
	return ""
}
