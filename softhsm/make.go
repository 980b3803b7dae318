package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Make makes a permanent token in dir. If one with that label is there, the error is
// [keystore.ErrExists]; if that one has no user PIN yet, it gets it. No store of SoftHSM may be open
// in this process.
//
// Another process sees the whole token or none, and a process that is killed leaves no part of one,
// which SoftHSM could not read: the token is made in a directory of its own, and moved. Processes that
// make tokens in one directory take turns.
func Make(dir, label string, userPIN, soPIN []byte) error {
	module, err := FindModule()
	if err != nil {
		return err
	}
	config, err := Configure(dir)
	if err != nil {
		return err
	}
	tokens := filepath.Join(dir, "tokens")
	unlock, err := lock(tokens)
	if err != nil {
		return err
	}
	defer unlock()
	there, err := hsm.Tokens(module)
	if err != nil {
		return fmt.Errorf("%w; SoftHSM cannot read a token in %s: look at the permissions there, or restore it from a backup, or remove its directory if it was never used", err, tokens)
	}
	named := func(u hsm.URI) bool { return u.Token == strings.TrimRight(label, " ") }
	if slices.ContainsFunc(there, named) {
		return hsm.InitToken(module, label, soPIN, userPIN)
	}
	defer os.Setenv("SOFTHSM2_CONF", config)
	return makeApart(module, filepath.Join(dir, ".new-token"), tokens, label, userPIN, soPIN)
}

// CheckPIN refuses a PIN that a token cannot have. Nil stands for one that is not chosen yet.
func CheckPIN(pin []byte) error {
	if n := len(pin); pin != nil && (n < 4 || n > 255) {
		return keystore.NoPINf("softhsm: a PIN must be 4 to 255 bytes long, and this one has %d: choose another", n)
	}
	return nil
}

// makeApart makes a token in a directory that nobody else uses, and moves it to the others.
func makeApart(module, apart, tokens, label string, userPIN, soPIN []byte) error {
	if err := os.RemoveAll(apart); err != nil { // that of a process that was killed
		return fmt.Errorf("softhsm: %w", err)
	}
	defer os.RemoveAll(apart)
	if _, err := Configure(apart); err != nil {
		return err
	}
	if err := hsm.InitToken(module, label, soPIN, userPIN); err != nil {
		return err
	}
	made, err := os.ReadDir(filepath.Join(apart, "tokens"))
	if err == nil && len(made) != 1 {
		err = errors.New("SoftHSM made the token elsewhere: this process uses it with another configuration already")
	}
	if err == nil {
		name := made[0].Name()
		err = os.Rename(filepath.Join(apart, "tokens", name), filepath.Join(tokens, name))
	}
	if err != nil {
		return fmt.Errorf("softhsm: %w", err)
	}
	return nil
}

// lock waits until no other process makes a token in the directory. On a file system without locks,
// it does not wait.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("softhsm: %w", err)
	}
	for end := time.Now().Add(keystore.OthersWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && (errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)) && time.Now().Before(end) {
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("softhsm: another process has been making a token in %s for %v: %w; try again", dir, keystore.OthersWait, keystore.ErrBusy), d.Close())
		}
		return func() { d.Close() }, nil
	}
}
