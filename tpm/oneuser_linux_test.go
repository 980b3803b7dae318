package tpm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestOneUser has a TPM at a device without a resource manager, such as /dev/tpm0, which only
// one process at a time can open: it is free between operations, and nothing stays loaded.
func TestOneUser(t *testing.T) {
	path, left := oneUser(t)
	c := tpm.Config{URI: "tpm:?device=" + path + "&state=" + filepath.Join(t.TempDir(), "state")}
	s := must[*tpm.Store](t)(tpm.Init(c))
	defer s.Close()
	key := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256)).(keystore.MAC)
	for range 2 {
		must[[]byte](t)(key.Sum([]byte("a message")))
		select {
		case loaded := <-left:
			if loaded != 0 {
				t.Errorf("%d keys are left in the TPM", loaded)
			}
		case <-time.After(time.Minute):
			t.Fatal("the device is still open")
		}
	}
	start := time.Now()
	s.Device().MakeWay()
	if passed := time.Since(start); passed < 100*time.Millisecond {
		t.Errorf("others have %v to open it", passed)
	}
}

// oneUser passes a TPM through a character device with the name tpm0, and reports how many keys
// are loaded each time that it is closed.
func oneUser(t *testing.T) (path string, left chan uint32) {
	t.Helper()
	conn := must[io.ReadWriteCloser](t)(tpmtest.Start(t).Dial())
	pair, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	number, err := unix.IoctlGetInt(int(pair.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(pair.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil { // as it is: no line discipline
		err = unix.IoctlSetTermios(int(pair.Fd()), unix.TCSETS, &unix.Termios{Cflag: unix.CS8 | unix.CREAD, Cc: [19]uint8{unix.VMIN: 1}})
	}
	path = filepath.Join(t.TempDir(), "tpm0")
	if err == nil {
		err = os.Symlink(fmt.Sprint("/dev/pts/", number), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	left, ended := make(chan uint32, 100), make(chan struct{})
	go func() {
		defer close(ended)
		relay(pair, conn, left)
	}()
	t.Cleanup(func() { pair.Close(); <-ended; conn.Close() })
	return path, left
}

// relay passes commands on until the pair is closed.
func relay(pair *os.File, conn io.ReadWriter, left chan uint32) {
	used := false
	for {
		command := make([]byte, 4096)
		n, err := pair.Read(command)
		switch {
		case err == nil:
			answer, err := tpmtest.Exchange(conn, command[:n])
			if err == nil {
				_, err = pair.Write(answer)
			}
			if err != nil {
				return
			}
			used = true
		case used: // nobody has it open anymore
			used = false
			list, err := tpmtest.Exchange(conn, []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 9})
			if err != nil || len(list) < 19 {
				return
			}
			left <- binary.BigEndian.Uint32(list[15:])
		case errors.Is(err, os.ErrClosed):
			return
		default:
			time.Sleep(time.Millisecond)
		}
	}
}
