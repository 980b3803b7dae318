//go:build cgo && !nopkcs11

package keys

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// isolatedSettings are the key store settings that such a process receives.
type isolatedSettings struct {
	Initialize        string
	SoftHSM           string
	URI               string // with the module, and without a source of the PIN
	PIN               bool   // follows on isolated.PINFD
	Sessions          config.SessionBound
	Wait, CallTimeout time.Duration
	Prefix            string
	SessionKeys       string
	TrustedWrap       bool
	AllowWeak         []string
	Sandbox           bool
	Calls             bool // each is to be reported
}

// openIsolated opens the keys in a token, in a separate process.
func openIsolated(k *config.Keystore) (Store, error) {
	if err := CheckSoftHSM(k); err != nil {
		return nil, err
	}
	uri, err := Resolve(k)
	if err != nil {
		return nil, err
	}
	source := cmp.Or(k.PIN, uri.PINSource)
	pin, err := readPIN(source)
	if err != nil {
		return nil, err
	}
	uri.PINSource = ""
	if k.IsolateSandbox {
		hide(k.Log)
	}
	settings, err := json.Marshal(isolatedSettings{
		Initialize: k.Initialize, SoftHSM: k.SoftHSM, URI: uri.String(), PIN: pin != nil, Sessions: k.Sessions, Wait: k.Wait, CallTimeout: k.CallTimeout,
		Prefix: k.Prefix, SessionKeys: k.SessionKeys, TrustedWrap: k.TrustedWrap, AllowWeak: k.AllowWeak, Sandbox: k.IsolateSandbox, Calls: k.Calls != nil,
	})
	if err != nil {
		return nil, err
	}
	s, err := isolated.Open(isolated.Config{
		Command: isolatedCommand, Settings: settings, PIN: pin, Log: k.Log, Calls: k.Calls, Wait: k.Wait, Memory: k.IsolateMemory,
		ReadPIN: rereading(source),
		Limit:   cmp.Or(k.Wait, 5*time.Second) + cmp.Or(k.CallTimeout, 10*time.Second),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// hide keeps this process's memory from the library, which runs in a process of the same
// user.
func hide(log *slog.Logger) {
	if err := isolated.Hide(); err != nil && log != nil {
		log.Warn("the key store process can read this process's memory", "error", err)
	}
}

// readPIN reads the PIN from a source or, as in a URI, from the absolute path of a file.
func readPIN(source string) (*lockedmem.Buffer, error) {
	if source == "" {
		return nil, nil
	}
	if parsed, err := hsm.ParsePINSource(source); err == nil {
		source = string(parsed)
	}
	return Secret(source, "PIN of the PKCS #11 token")
}

// rereading returns a function that reads the PIN again, if it is in a file.
func rereading(source string) func() (*lockedmem.Buffer, error) {
	if !isFile(source) && !filepath.IsAbs(source) { // as in the pin-source of a URI
		return nil
	}
	return func() (*lockedmem.Buffer, error) { return readPIN(source) }
}

// renewIsolated makes a key store's process log in with the PIN now in the file.
func renewIsolated(c *config.Keystore, s *isolated.Store) error {
	pin, err := readPIN(c.PIN)
	if err != nil {
		return err
	}
	return s.RenewPIN(pin)
}

func isolatedCommand() *exec.Cmd { return ownCommand(IsolatedVerb) }

// ownCommand is this program again: the same version of it, even after its file was
// replaced. A trace of its goroutines would say nothing about a module that crashed.
func ownCommand(verb string) *exec.Cmd {
	path := "/proc/self/exe"
	if runtime.GOOS != "linux" {
		path, _ = os.Executable()
	}
	c := exec.Command(path, verb)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), "GOTRACEBACK=none")
	c.Stderr = os.Stderr
	return c
}

// ServeIsolated is the work of the process that holds a key store for another one. The
// other one has been informed of any error that it returns.
func ServeIsolated() error {
	return isolated.ServeReporting(func(text []byte, to isolated.Reporter) (keystore.Store, error) {
		var s isolatedSettings
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, exit.Usagef("settings of the key store: %w", err)
		}
		k := &config.Keystore{
			Initialize: s.Initialize, SoftHSM: s.SoftHSM, URI: s.URI, Sessions: s.Sessions, Wait: s.Wait, CallTimeout: s.CallTimeout,
			Prefix: s.Prefix, SessionKeys: s.SessionKeys, TrustedWrap: s.TrustedWrap, AllowWeak: s.AllowWeak, Log: to.Log,
		}
		if s.Sandbox {
			if err := isolated.Confine(); err != nil {
				to.Log.Warn("the key store process has no sandbox", "error", err)
			}
		}
		if s.PIN {
			k.PIN = fmt.Sprintf("fd:%d", isolated.PINFD)
		}
		if s.Calls {
			k.Calls = to.Calls
		}
		k.Login = to.Login
		return openDescribed(k)
	})
}

// A described store is one in this process that reports its contents to another process.
type described struct{ *hsm.Store }

func openDescribed(k *config.Keystore) (keystore.Store, error) {
	s, err := openToken(k)
	if err != nil {
		return nil, err
	}
	return described{s}, nil
}

// TakePIN makes the store log in with another PIN.
func (d described) TakePIN(fd int) error {
	defer syscall.Close(fd)
	return d.RenewPIN(hsm.PINSource(fmt.Sprintf("fd:%d", fd)))
}

// Device returns what the store holds in its token.
func (d described) Device() isolated.Device {
	st := d.Stats()
	return isolated.Device{Open: st.Sessions, InUse: st.InUse, Objects: st.Objects, Epoch: st.Epoch, Stuck: st.Stuck}
}
