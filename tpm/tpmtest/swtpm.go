package tpmtest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A TPM is the state of a software TPM. It is switched on by Dial.
type TPM struct {
	// State is the directory with the persistent state of the TPM.
	State string

	mu      sync.Mutex
	process *process // the last one started
}

// Start makes a TPM without endorsement certificates.
func Start(t testing.TB) *TPM {
	t.Helper()
	need(t, "swtpm")
	p := &TPM{State: filepath.Join(t.TempDir(), "tpm")}
	if err := os.Mkdir(p.State, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// need skips the test, or fails it, if a program is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		_, err := exec.LookPath(program)
		switch {
		case err == nil:
		case strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "swtpm"):
			t.Fatalf("%v: install swtpm and swtpm-tools", err)
		default:
			t.Skip(err)
		}
	}
}

// Dial switches the TPM off and on, and returns the only connection to it. Closing the
// connection switches off the TPM.
func (p *TPM) Dial() (io.ReadWriteCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process.stop()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	p.process, err = run(p.State, theirs, "--fd", "3")
	if err != nil {
		return nil, err
	}
	return net.FileConn(ours) // with a descriptor of its own
}

// Kill cuts the power: the TPM gets no TPM2_Shutdown.
func (p *TPM) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process.stop()
}

// Freeze stops the TPM, so that it no longer answers. The next Dial switches it off and
// on.
func (p *TPM) Freeze(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.process.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// Clear power-cycles the TPM, sends TPM2_Clear and switches it off: the owner's keys are
// gone, and the endorsement key stays.
func (p *TPM) Clear(t testing.TB) {
	t.Helper()
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sendClear(t, conn)
}

// ClearCommand is TPM2_Clear with an empty lockout password: TPM_ST_SESSIONS, size,
// TPM_CC_Clear, TPM_RH_LOCKOUT, and a password session (TPM 2.0 Library, Part 3, clause
// 24.6).
func ClearCommand() []byte {
	return []byte{
		0x80, 0x02, 0, 0, 0, 27, 0, 0, 0x01, 0x26, 0x40, 0, 0, 0x0a,
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0,
	}
}

func sendClear(t testing.TB, conn io.ReadWriter) {
	t.Helper()
	answer, err := Exchange(conn, ClearCommand())
	if err != nil || Code(answer) != 0 {
		t.Fatalf("TPM2_Clear: %#x, %v", Code(answer), err)
	}
}

// Replace turns it into another TPM: new seeds, nothing kept.
func (p *TPM) Replace(t testing.TB) {
	t.Helper()
	p.Kill()
	if err := os.RemoveAll(p.State); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.State, 0o700); err != nil {
		t.Fatal(err)
	}
}

func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // macOS has no SOCK_CLOEXEC
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("tpmtest: socketpair: %w", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "tpm"), os.NewFile(uintptr(fds[1]), "swtpm"), nil
}

// A process is a swtpm that is or was running.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// run starts swtpm on a state directory. file, if not nil, is its descriptor 3.
func run(state string, file *os.File, args ...string) (*process, error) {
	args = append([]string{
		"socket", "--tpm2", "--tpmstate", "dir=" + state, "--flags", "not-need-init,startup-clear",
		"--log", "level=0,file=" + filepath.Join(state, "log"),
	}, args...)
	cmd := exec.Command("swtpm", args...)
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("tpmtest: %w", err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		cmd.Wait() // it is killed, or ends with its connection
		close(p.exited)
	}()
	return p, nil
}

// stop kills a swtpm, since two cannot use one state directory. Its state is on disk
// before it answers a command.
func (p *process) stop() {
	if p != nil {
		p.cmd.Process.Kill()
		<-p.exited
	}
}
