package cli

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

// A manager starts a server as systemd does: with a socket that stays open, and one to
// be notified on.
type manager struct {
	t      *testing.T
	dir    string
	socket *os.File
	notes  *net.UnixConn
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, dir: t.TempDir()}
	write(t, m.dir, "pin", "secret")
	write(t, m.dir, "c.yaml", `
keystore: {uri: 'soft:keys', pin: 'file:pin'}
server: {state: server.db, drain: 700ms, admin: {health: /healthz}}
`)
	create := exec.Command("msl-hsm", "key", "create", "--set", "server", "--config", "c.yaml")
	create.Dir = m.dir
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the file keeps the socket
	if m.socket, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	m.notes, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.socket.Close(); m.notes.Close() })
	return m
}

// start starts the server. systemd knows its process id before it runs, and so does a
// shell.
func (m *manager) start() *exec.Cmd {
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ exec msl-hsm serve --config c.yaml`)
	c.Dir, c.Stderr, c.ExtraFiles = m.dir, os.Stderr, []*os.File{m.socket}
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "LISTEN_FDS=1", "LISTEN_FDNAMES=http", "WATCHDOG_USEC=100000")
	if testing.Verbose() {
		c.Stdout = os.Stdout
	} else {
		c.Stderr = nil
	}
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Process.Kill() })
	return c
}

// told waits until the server has reported this, and returns what it reported.
func (m *manager) told(want string) string {
	m.t.Helper()
	m.notes.SetReadDeadline(time.Now().Add(30 * time.Second))
	buffer := make([]byte, 4096)
	for {
		n, err := m.notes.Read(buffer)
		if err != nil {
			m.t.Fatalf("systemd is not told %s: %v", want, err)
		}
		if strings.HasPrefix(string(buffer[:n]), want) {
			return string(buffer[:n])
		}
	}
}

// status asks for the health of the server.
func (m *manager) status() int {
	m.t.Helper()
	l, err := net.FileListener(m.socket)
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	web := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := web.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		m.t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode
}

// TestSystemdWrongSockets starts a server with descriptors that do not listen, or with more than there
// are names for: it does not listen somewhere else instead.
func TestSystemdWrongSockets(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	datagrams, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		count string
		files []*os.File
		want  string
	}{
		{"1:stream", []*os.File{m.socket}, "server.stream.listen is not set"},
		{"1", nil, "does not listen"}, {"1", []*os.File{null}, "does not listen"}, {"1", []*os.File{datagrams}, "does not listen"},
		{"2", []*os.File{m.socket, m.socket}, "a second one for server.listen"},
		{"99999999", []*os.File{m.socket}, `LISTEN_FDS is "99999999"`}, {"x", []*os.File{m.socket}, `LISTEN_FDS is "x"`},
	} {
		run := exec.Command("sh", "-c", `LISTEN_PID=$$ exec msl-hsm serve --config c.yaml --listen 127.0.0.1:0`)
		run.Dir, run.ExtraFiles = m.dir, c.files
		count, name, _ := strings.Cut(c.count, ":")
		run.Env = append(os.Environ(), "LISTEN_FDS="+count, "LISTEN_FDNAMES="+name)
		out, err := run.CombinedOutput()
		if err == nil || run.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "correct the .socket unit") {
			t.Errorf("LISTEN_FDS=%s, %d files: %v: %s", c.count, len(c.files), err, out)
		}
	}
}

// TestSystemd runs a server as a unit of Type=notify with a socket and a watchdog.
func TestSystemd(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	first := m.start()
	m.told("READY=1")
	if got := m.status(); got != http.StatusOK {
		t.Errorf("health is %d", got)
	}
	m.told("WATCHDOG=1")
	m.told("WATCHDOG=1")
	first.Process.Signal(syscall.SIGHUP)
	if note := m.told("RELOADING=1"); !strings.Contains(note, "MONOTONIC_USEC=") {
		t.Errorf("a reload is told as %q", note)
	}
	m.told("READY=1")

	first.Process.Signal(syscall.SIGTERM)
	await(t, "not ready", func() bool { return m.status() == http.StatusServiceUnavailable })
	m.told("STOPPING=1")
	if err := first.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}

	// Whoever comes now waits for the next one.
	early := make(chan int, 1)
	go func() { early <- m.status() }()
	second := m.start()
	m.told("READY=1")
	if got := <-early; got != http.StatusOK {
		t.Errorf("who came between two servers got %d", got)
	}
	second.Process.Signal(syscall.SIGTERM)
	second.Process.Signal(syscall.SIGHUP) // ends nothing
	if err := second.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestSystemdWatchdog ends a server as the watchdog of systemd does, and as a crash of its library: by
// a signal, since systemd does not restart one that ends with the code of a wrong use.
func TestSystemdWatchdog(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	server := m.start()
	m.told("READY=1")
	server.Process.Signal(syscall.SIGABRT)
	server.Wait()
	// With the race detector, showing all goroutines crashes in one of a hundred runs: a signal, too.
	status := server.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signal() != syscall.SIGABRT && !(raceDetector && status.Signal() == syscall.SIGSEGV) {
		t.Errorf("it ended with %v", server.ProcessState)
	}
}

// TestPausesProlongStart checks that systemd waits for a start that pauses before it gives a PIN again:
// it would end the start and begin another one, and neither would count.
func TestPausesProlongStart(t *testing.T) {
	dir := t.TempDir()
	notes, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notes.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	t.Setenv("STATE_DIRECTORY", dir)
	var k config.Keystore
	countRefusals(&k, t.Context(), "agent")
	k.Pauses(5 * time.Minute)
	(&manager{t: t, notes: notes}).told("EXTEND_TIMEOUT_USEC=390000000")
}
