package hsm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// lockToken keeps other processes on this machine from changing the provisioned keys of the token: all
// that have the same Config.LockDir, or else those of this user. SoftHSM needs that: one process does
// not see what another made while it made something itself, until the next change. If the lock file
// cannot be made there is no lock: provision is safe without one if the module shows new objects to all
// processes at once.
func (p *provisioner) lockToken() (unlock func(), err error) {
	sum := sha256.Sum256([]byte(*p.access.serial.Load()))
	name := fmt.Sprintf("keys-%02x.lock", sum[0]) // a file for every token would be left for every token
	return lockProcesses(p.lockDir, name, "changing the keys of the token")
}

// lockTokens keeps other processes of this user from making tokens or changing PINs with any module.
// Two that make tokens would take the same slot, or make two with one label, since a module lists its
// tokens when it is initialized. SoftHSM also reads the PINs then: of two processes that change one, both
// are told that it is changed.
func lockTokens() (unlock func(), err error) {
	return lockProcesses("", "tokens.lock", "making a token or changing a PIN")
}

// lockProcesses waits for a lock file that other processes hold while they are doing something. Where
// there can be no lock file, there is no lock.
func lockProcesses(dir, name, doing string) (unlock func(), err error) {
	f, err := openLock(dir, name)
	if err != nil {
		return func() {}, nil
	}
	for end := time.Now().Add(keystore.OthersWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return func() {}, f.Close() // a file system without locks
		case time.Now().After(end):
			return nil, errors.Join(fmt.Errorf("hsm: another process has been %s for %v: %w; try again", doing, keystore.OthersWait, keystore.ErrBusy), f.Close())
		}
	}
}

// openLock opens a lock file, in the directory for such files or else one of this user.
func openLock(dir, name string) (*os.File, error) {
	if dir != "" {
		if f, err := openCommon(dir, name); err == nil {
			return f, nil
		}
	}
	return openOwn(filepath.Join(os.TempDir(), fmt.Sprintf("msl-hsm-%d", os.Getuid())), name)
}

// openCommon opens a file that whoever may make files in the directory can open. Linux does not let
// one user open another's file in a directory such as /tmp if it is to be made where it is missing
// (proc(5), fs.protected_regular).
func openCommon(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name)
	if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0); !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	in, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	f, err := create(path)
	if err == nil {
		_ = f.Chmod(in.Mode() & 0o666) // otherwise other users have locks of their own, as without a common directory
	}
	return f, err
}

// openOwn opens a file in a directory that nobody else may write to.
func openOwn(dir, name string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	var st unix.Stat_t
	switch err := unix.Lstat(dir, &st); {
	case err != nil:
		return nil, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0:
		return nil, os.ErrPermission
	}
	return create(filepath.Join(dir, name))
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}
