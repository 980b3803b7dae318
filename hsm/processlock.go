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

// lockToken keeps other processes of this user on this machine from changing the
// provisioned keys of the token. SoftHSM needs that: one process does not see what
// another made while it made something itself, until the next change. If the
// lock file cannot be made there is no lock: provision is safe without one if the
// module shows new objects to all processes at once.
func (p *provisioner) lockToken() (unlock func(), err error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("msl-hsm-%d", os.Getuid()))
	sum := sha256.Sum256([]byte(*p.access.serial.Load()))
	name := fmt.Sprintf("keys-%02x.lock", sum[0]) // a file for every token would be left for every token
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
			return nil, errors.Join(fmt.Errorf("hsm: another process has been changing the keys of the token for %v: %w; try again", keystore.OthersWait, keystore.ErrBusy), f.Close())
		}
	}
}

// openLock opens a file in a directory that nobody else may write to.
func openLock(dir, name string) (*os.File, error) {
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
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}
