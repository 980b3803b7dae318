package bolt

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
)

// TestDiskFails lets the disk fail under a file that is open: whoever changes something is told,
// and when the disk works again, nothing is lost and nothing was made by half.
func TestDiskFails(t *testing.T) {
	const metaPages = 2
	for name, fails := range map[string]disk{
		"pages":            {call: unix.SYS_PWRITE64, below: ^uint32(0)},
		"sync":             {call: unix.SYS_FDATASYNC, below: ^uint32(0)},
		"the last of them": {call: unix.SYS_PWRITE64, below: uint32(metaPages * unix.Getpagesize())},
	} {
		t.Run(name, func(t *testing.T) {
			f := guarded(&kvtest.Mark{}, authkv.Adopt)
			path := filepath.Join(t.TempDir(), "state")
			s, err := f.Create(path)
			if err = errors.Join(err, s.AcceptID(t.Context(), "device", 1, 1)); err != nil {
				t.Fatal(err)
			}
			fails.during(t, func() {
				for what, err := range map[string]error{
					"id":         s.AcceptID(t.Context(), "device", 1, 2),
					"revocation": s.RevokeEntity("device"),
				} {
					if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), path+": input/output error: the disk is failing") {
						t.Errorf("%s: %v", what, err)
					}
				}
				if err := s.Revoked(t.Context(), "device", ""); err != nil {
					t.Errorf("read meanwhile: %v", err)
				}
			})
			err = errors.Join(s.AcceptID(t.Context(), "device", 1, 2), s.RevokeEntity("thief"), s.Close())
			if err != nil {
				t.Fatal(err)
			}
			if s, err = f.Reopen(path); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Revoked(t.Context(), "thief", "") == nil || s.Revoked(t.Context(), "device", "") != nil {
				t.Error("not what was acknowledged is in the file")
			}
		})
	}
}

// A disk fails in one system call, where that begins below an offset.
type disk struct{ call, below uint32 }

// during calls fn on a thread that the system lets feel that. The thread ends with it.
func (d disk) during(t *testing.T, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		number, fourth := uint32(0), uint32(16+3*8) // in struct seccomp_data
		program := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: d.call},
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: fourth},
			{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: d.below},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		err := errors.Join(
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
			unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0))
		if err != nil {
			t.Error(err)
			return
		}
		fn()
	}()
	<-done
}
