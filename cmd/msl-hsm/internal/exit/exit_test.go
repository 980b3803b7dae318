package exit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// TestNextSteps has what a person reads after an error of a device's identity.
func TestNextSteps(t *testing.T) {
	for err, want := range map[error]string{
		identity.ErrNotEnrolled: "refused: device is not enrolled: run msl-hsm tpm enroll: more",
		identity.ErrOtherTPM:    "refused: state file belongs to another TPM: if this TPM takes its place, run msl-hsm tpm init --replace: more",
		enroll.ErrKeyRevoked:    "refused: key is revoked: run msl-hsm tpm init --new-keys and enroll again: more",
		enroll.ErrRejected:      "refused: enrollment was rejected: more",
		&tpm.LastTryError{}:     "refused: one more wrong password would lock the TPM: more: run msl-hsm tpm unlock",
	} {
		if got := OneLine(fmt.Errorf("refused: %w: more", err)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestOtherIndex names another index for a counter than the one that cannot be used.
func TestOtherIndex(t *testing.T) {
	for at, want := range map[string]string{"0x1804d53": "0x1804d54", "0x1804d54": "0x1804d55"} {
		got := OneLine(fmt.Errorf("counter %s: choose another index: no", at))
		if got != "counter "+at+": choose another index, such as --anti-rollback="+want+": no" {
			t.Error(got)
		}
	}
}

// TestTPMCodes has codes of a TPM for which nothing else says what to do.
func TestTPMCodes(t *testing.T) {
	const unexpected = "; the TPM does not accept this: try again, and if that does not help, report this line together with what tpm2_getcap properties-fixed prints"
	for code, want := range map[tpm2.TPMRC]string{
		0x2ca:              "read: TPM2_Create: TPM_RC_TYPE (parameter 2)" + unexpected,
		0x140:              "read: TPM2_Create: unknown format-0 error code (0x140)" + unexpected,
		0xb0505:            "read: TPM2_Create: unknown format-0 error code (0xb0505)" + unexpected,
		tpm2.TPMRCFailure:  "read: TPM2_Create: TPM_RC_FAILURE: if this persists, the TPM has failed: restart the machine; for a software TPM, check that its state directory exists",
		tpm2.TPMRCUpgrade:  "read: TPM2_Create: TPM_RC_UPGRADE: the firmware of the TPM is being updated: finish that with the program that began it",
		tpm2.TPMRCAuthFail: "read: TPM2_Create: TPM_RC_AUTH_FAIL (handle 0): the PIN is wrong; it was not tried again",
	} {
		if got := OneLine(fmt.Errorf("read: %w", &tpm.Error{Command: "TPM2_Create", Code: code})); got != want {
			t.Errorf("%#x: %q, want %q", uint32(code), got, want)
		}
	}
}

// TestManyFiles says what to do where no more files can be opened.
func TestManyFiles(t *testing.T) {
	err := fmt.Errorf("read: %w", &fs.PathError{Op: "open", Path: "a", Err: syscall.EMFILE})
	if got := OneLine(err); !strings.HasSuffix(got, "too many open files; raise the limit of open files (ulimit -n, LimitNOFILE of systemd)") {
		t.Error(got)
	}
}

// TestFileSystems says what to do about files that cannot be written, here and at a server.
func TestFileSystems(t *testing.T) {
	for err, want := range map[error]string{
		os.NewSyscallError("getwd", syscall.ENOENT):                                 "getwd: no such file or directory; the working directory was removed: change to another one",
		&fs.PathError{Op: "write", Path: "server.db", Err: syscall.ENOSPC}:          "write server.db: no space left on device; make room on that disk, and try again",
		&fs.PathError{Op: "write", Path: "server.db", Err: syscall.EDQUOT}:          "write server.db: disk quota exceeded; make room in that quota, and try again",
		&fs.PathError{Op: "write", Path: "server.db", Err: syscall.EFBIG}:           "write server.db: file too large; raise the limit of its size (ulimit -f, LimitFSIZE of systemd), and try again",
		&fs.PathError{Op: "stat", Path: "pin/a", Err: syscall.ENOTDIR}:              "stat pin/a: not a directory; correct the path",
		&fs.PathError{Op: "stat", Path: "aaa", Err: syscall.ENAMETOOLONG}:           "stat aaa: file name too long; shorten the path, or correct it",
		&fs.PathError{Op: "read", Path: "pin", Err: syscall.EIO}:                    "read pin: input/output error; the disk or device fails: the kernel log says more",
		&fs.PathError{Op: "read", Path: "pin", Err: syscall.ESTALE}:                 "read pin: stale file handle; mount its file system again",
		&fs.PathError{Op: "open", Path: "server.db", Err: syscall.EROFS}:            "open server.db: read-only file system; mount it for writing; if it became read-only on its own, the kernel log says why",
		&fs.PathError{Op: "open", Path: "server.db", Err: syscall.EPERM}:            "open server.db: operation not permitted; lsattr shows whether the file is immutable (undo it with chattr -i); the kernel log says whether something else forbids it",
		&fs.PathError{Op: "open", Path: "access.jsonl", Err: syscall.ENXIO}:         "open access.jsonl: no such device or address; name a file, or a pipe whose reader runs",
		errors.New("running server: add: write server.db: no space left on device"): "running server: add: write server.db: no space left on device; make room on that disk, and try again",
		fmt.Errorf("the PIN from fd:9: %w", syscall.EBADF):                          "the PIN from fd:9: bad file descriptor; it is not open: the program that starts msl-hsm must open it",
		&net.OpError{Op: "listen", Net: "unix", Err: syscall.EINVAL}:                "listen unix: invalid argument; the path of a socket must not exceed 107 bytes: choose a shorter one",
		&net.OpError{Op: "listen", Net: "tcp", Err: syscall.EINVAL}:                 "listen tcp: invalid argument",
		errors.New("no space left on device, said a peer"):                          "no space left on device, said a peer",
	} {
		if got := OneLine(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLongLine keeps the beginning and the end of an error that repeats something endless.
func TestLongLine(t *testing.T) {
	got := OneLine(fmt.Errorf("unknown command %q; see msl-hsm --help", strings.Repeat("ä", 50_000)))
	if len(got) > longestLine || !utf8.ValidString(got) || !strings.HasPrefix(got, `unknown command "ää`) || !strings.HasSuffix(got, `ää"; see msl-hsm --help`) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if text := strings.Repeat("x", longestLine); OneLine(errors.New(text)) != text {
		t.Error("an error of the permitted length is changed")
	}
}

// TestWithoutPackages removes what only a programmer knows, and nothing that a user wrote.
func TestWithoutPackages(t *testing.T) {
	for text, want := range map[string]string{
		"keystore: no such key":                                "no such key",
		"msl: inspect: wire: byte 0: not an object":            "inspect: byte 0: not an object",
		"key \"a\": keystore: no such key; soft: it is closed": "key \"a\": no such key; it is closed",
		"hsm: soft: twice":                                     "twice",
		"key store soft: names no file: write soft:FILE":       "key store soft: names no file: write soft:FILE",
		"--nonce: want digits: encoding/hex: invalid byte":     "--nonce: want digits: invalid byte",

		`msl: peer answered FAIL: "order: state: lost"; msl: "a\"; tls: b": tls: c`: `peer answered FAIL: "order: state: lost"; "a\"; tls: b": c`,
		`key "hsm: msl: a": keystore: no such key`:                                  `key "hsm: msl: a": no such key`,
	} {
		if got := OneLine(errors.New(text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for text, want := range map[string]string{"dev": "dev", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "/tmp/x_1.yaml": "/tmp/x_1.yaml"} {
		if got := Quoted(text); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestDeviceFailed says what to do about a device that fails, where nothing else does.
func TestDeviceFailed(t *testing.T) {
	const next = "; the device fails: try again, and if that does not help, check the device and the log of its module"
	for text, want := range map[string]string{
		"hsm: C_Sign: CKR_DEVICE_ERROR":                                                                                        "C_Sign: CKR_DEVICE_ERROR" + next,
		"hsm: C_Sign: CKR 0x80000001":                                                                                          "C_Sign: CKR 0x80000001" + next,
		"hsm: C_Sign: the module answered 255 bytes instead of 256":                                                            "C_Sign: the module answered 255 bytes instead of 256" + next,
		"hsm: C_Sign: the module answered 255 bytes; again":                                                                    "C_Sign: the module answered 255 bytes; again",
		"slot 1: C_GetTokenInfo: CKR_GENERAL_ERROR":                                                                            "slot 1: C_GetTokenInfo: CKR_GENERAL_ERROR" + next,
		"isolated: it ended before the store was open (signal: killed): keystore: unavailable":                                 "it ended before the store was open (signal: killed): unavailable" + next,
		"isolated: it ended before the store was open (exit status 2), while the PIN was given: keystore: unavailable":         "it ended before the store was open (exit status 2), while the PIN was given: unavailable" + next,
		"isolated: the key store was not open after 30s: keystore: unavailable":                                                "the key store was not open after 30s: unavailable" + next,
		"isolated: the process of the key store does not return from C_FindObjects and is replaced: keystore: unavailable":     "the process of the key store does not return from C_FindObjects and is replaced: unavailable" + next,
		"isolated: the process of the key store has ended (signal: segmentation fault) and is replaced: keystore: unavailable": "the process of the key store has ended (signal: segmentation fault) and is replaced: unavailable" + next,
		"C_Initialize: CKR_DEVICE_ERROR; see the configuration of m":                                                           "C_Initialize: CKR_DEVICE_ERROR; see the configuration of m",
		"the server said C_Sign: CKR_DEVICE_ERROR there":                                                                       "the server said C_Sign: CKR_DEVICE_ERROR there",
	} {
		if got := OneLine(kindError{text, keystore.ErrUnavailable}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	lacks := kindError{"hsm: C_EncryptInit: CKR_MECHANISM_INVALID", errors.ErrUnsupported}
	if got := OneLine(lacks); got != "C_EncryptInit: CKR_MECHANISM_INVALID; the module cannot do that, and its vendor would have to add it: msl-hsm module test shows what it lacks" {
		t.Error(got)
	}
	denied := &fs.PathError{Op: "open", Path: "server.db", Err: syscall.EACCES}
	if got := OneLine(denied); got != "open server.db: permission denied; run this as the user who owns it, such as that of the server" {
		t.Error(got)
	}
	if got := OneLine(fmt.Errorf("%w; name another file", denied)); got != "open server.db: permission denied; name another file" {
		t.Error(got)
	}
	if got := OneLine(keystore.NoPINf("hsm: C_Login: CKR_PIN_LOCKED")); got != "C_Login: CKR_PIN_LOCKED" {
		t.Error(got)
	}
}

// TestEachOnce joins errors of which several say the same, as where a device fails each time.
func TestEachOnce(t *testing.T) {
	lost := errors.New("hsm: C_DestroyObject: CKR_DEVICE_ERROR")
	if got := OneLine(errors.Join(lost, errors.Join(lost, lost), errors.New("another"), lost)); got != "C_DestroyObject: CKR_DEVICE_ERROR; another" {
		t.Error(got)
	}
}

// TestCommand writes commands for arguments that a shell, or this program, would take for
// something else.
func TestCommand(t *testing.T) {
	for argument, want := range map[string]string{
		"dev": "msl-hsm key create dev --set x", "a b": "msl-hsm key create 'a b' --set x", "-a": "msl-hsm key create --set x -- -a", "": "msl-hsm key create '' --set x",
	} {
		if got := Command("key create", argument, "--set x"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestAllPackages wants every package of this module whose errors begin with its name to be
// known, apart from those for tests.
func TestAllPackages(t *testing.T) {
	const root = "../../../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		name := filepath.Base(filepath.Dir(path))
		text, err := os.ReadFile(path)
		prefix := name + ": "
		if strings.HasSuffix(name, "test") || !bytes.Contains(text, []byte(`"`+prefix)) {
			return err
		}
		if got := OneLine(errors.New(prefix + "it failed")); got != "it failed" {
			t.Errorf("%s: %s", path, got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPeerTexts leaves alone what a peer said, also where it stands without quotation marks.
func TestPeerTexts(t *testing.T) {
	peer := &msl.PeerError{Message: "tls: bad\nrecord: hsm: x", Identity: "soft: server"}
	for format, want := range map[string]string{
		"msl: %s: %w": `soft: server: 6 (FAIL): tls: bad\u000arecord: hsm: x: next`,
		"%s, hsm: %w": `soft: server, hsm: 6 (FAIL): tls: bad\u000arecord: hsm: x: next`,
	} {
		said := codedError{peer, Refused}
		got := OneLine(fmt.Errorf(format, Printable(peer.Identity), shown{said, "6 (FAIL): " + Printable(peer.Message) + ": next"}))
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A shown error has a text of its own.
type shown struct {
	error
	text string
}

func (s shown) Error() string { return s.text }
func (s shown) Unwrap() error { return s.error }

// TestPlainly leaves out how Go found out what a message says, and keeps what it says.
func TestPlainly(t *testing.T) {
	for text, want := range map[string]string{
		`no answer: Post "http://h:1/": dial tcp 127.0.0.1:1: connect: connection refused`: "no answer: 127.0.0.1:1: connection refused",
		`Delete "http://x/": dial tcp: lookup x on 10.0.0.53:53: no such host`:             "x: no such host",
		"dial tcp: address 99999: invalid port":                                            "address 99999: invalid port",
		"keys: a.psk: open a.psk: no such file or directory":                               "keys: a.psk: no such file or directory",
		"from file:/x/a: open /x/a: no such file or directory":                             "from file:/x/a: no such file or directory",
		"log: a: open b: no such file or directory":                                        "log: a: open b: no such file or directory",
		`it said "Post "+"x": "dial tcp 1: connect: refused"`:                              `it said "Post "+"x": "dial tcp 1: connect: refused"`,
	} {
		if got := OneLine(errors.New(text)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	peer := &msl.PeerError{Message: "dial tcp 1: connect: b"}
	if got := OneLine(fmt.Errorf("it said: %w", shown{peer, peer.Message})); got != "it said: "+peer.Message {
		t.Errorf("a peer's words became %q", got)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"json", "state", "strict", "url"}
	for word, want := range map[string]string{"jsn": "json", "stat": "state", "STATE": "state", "x": "", "nothing": "", "ulr": "url"} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%s is taken for %q, want %q", word, got, want)
		}
	}
}

func TestOfKind(t *testing.T) {
	kind := errors.New("kind")
	err := OfKind(kind, "text %d", 1)
	if !errors.Is(err, kind) || err.Error() != "text 1" {
		t.Errorf("%v", err)
	}
}

// TestUnreached tells a server that is not there from a key store behind a socket.
func TestUnreached(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	for what, test := range map[string]struct {
		err  error
		want bool
	}{
		"the server":          {&url.Error{Op: "Post", URL: "http://127.0.0.1:1/", Err: refused}, true},
		"a TPM":               {fmt.Errorf("msl: encrypt: tpm: no TPM: %w: %w", keystore.ErrUnavailable, refused), false},
		"a connection broken": {&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}, false},
	} {
		if got := Unreached(test.err); got != test.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 keys", 1: "1 key", 2: "2 keys", 11: "11 keys"} {
		if got := Count(n, "key", "keys"); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
