package softhsm

import (
	"errors"
	"fmt"
	"io/fs"
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
// which SoftHSM could not read: the token is made in a directory of its own, and moved. Only where that
// is not possible, as when the tokens are in a volume of their own, it is made among them. Processes
// that make tokens in one directory take turns.
func Make(dir, label string, userPIN, soPIN []byte) error {
	module, err := FindModule()
	if err != nil {
		return err
	}
	config, err := Configure(dir)
	if err != nil {
		return err
	}
	tokens := filepath.Join(filepath.Dir(config), "tokens") // absolute: a module may leave the working directory
	unlock, err := lock(tokens)
	if err != nil {
		return err
	}
	defer unlock()
	there, err := hsm.Tokens(module)
	if errors.As(err, new(*hsm.Error)) {
		return fmt.Errorf("%w; SoftHSM cannot read a token in %s: look at the permissions there, or restore it from a backup, or remove its directory if it was never used", err, tokens)
	}
	if err != nil {
		return err
	}
	named := func(u hsm.URI) bool { return u.Token == strings.TrimRight(label, " ") }
	if !slices.ContainsFunc(there, named) {
		if done, err := makeApart(module, config, tokens, label, userPIN, soPIN); done || err != nil {
			return err
		}
	}
	return hsm.InitToken(module, label, soPIN, userPIN)
}

// CheckPIN refuses a PIN that a token cannot have. Nil stands for one that is not chosen yet.
func CheckPIN(pin []byte) error {
	if n := len(pin); pin != nil && (n < 4 || n > 255) {
		return keystore.NoPINf("softhsm: a PIN must be 4 to 255 bytes long, and this one has %d: choose another", n)
	}
	return nil
}

// makeApart makes a token in a directory that nobody else uses, and moves it to the others. It is not
// done if there can be no such directory, or nothing can be moved from it to the tokens.
func makeApart(module, config, tokens, label string, userPIN, soPIN []byte) (done bool, err error) {
	defer os.Setenv("SOFTHSM2_CONF", config)
	apart := filepath.Join(filepath.Dir(tokens), ".new-token")
	defer os.RemoveAll(apart)
	err = configureApart(config, apart)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := hsm.InitToken(module, label, soPIN, userPIN); err != nil {
		return false, err
	}
	made, err := os.ReadDir(filepath.Join(apart, "tokens"))
	if err == nil && len(made) != 1 {
		err = errors.New("SoftHSM made the token elsewhere: this process uses it with another configuration already")
	}
	if err == nil {
		name := made[0].Name()
		err = os.Rename(filepath.Join(apart, "tokens", name), filepath.Join(tokens, name))
	}
	if errors.Is(err, unix.EXDEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("softhsm: %w", err)
	}
	return true, nil
}

// configureApart makes this process use an empty directory, with the settings of config.
func configureApart(config, apart string) error {
	settings, err := os.ReadFile(config)
	if err == nil {
		err = os.RemoveAll(apart) // that of a process that was killed
	}
	if err == nil {
		err = os.Mkdir(apart, 0o700)
	}
	if err == nil {
		own := fmt.Sprintf("%s = %s\n%s", tokenDir, filepath.Join(apart, "tokens"), elsewhere(string(settings)))
		err = os.WriteFile(filepath.Join(apart, configName), []byte(own), 0o600)
	}
	if err != nil {
		return fmt.Errorf("softhsm: %w", err)
	}
	_, err = Configure(apart)
	return err
}

// elsewhere leaves out of a configuration where the tokens are.
func elsewhere(settings string) string {
	var kept strings.Builder
	for line := range strings.Lines(settings) {
		if name, _, _ := strings.Cut(line, "="); strings.TrimSpace(name) != tokenDir {
			kept.WriteString(line)
		}
	}
	return kept.String()
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
