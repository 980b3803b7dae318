package isolated

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/msl-hsm/msl-hsm/internal/uncut"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// The descriptors that the child inherits.
const (
	controlFD = 3
	// PINFD is the descriptor from which the child reads the PIN, to its end.
	PINFD = 4
)

// gcPercent lets the child's own small memory grow to a multiple before it
// is collected: to collect it costs more than the calls that filled it.
const gcPercent = 800

// maxLanes bounds the calls under way at a time, each of which holds a thread in the child.
const maxLanes = 64

// Serve is the work of the child: open makes the store of the settings that the parent
// gave to [Config], with a log that reaches the one of the parent. Serve returns when the
// parent has closed the store or is gone, or with the error of open, which the parent has
// been told. The process is hidden, see [Hide].
func Serve(open func(settings []byte, log *slog.Logger) (keystore.Store, error)) error {
	return ServeReporting(func(settings []byte, to Reporter) (keystore.Store, error) { return open(settings, to.Log) })
}

// ServeReporting is Serve for a store that has more to tell than a log. The parent gets the
// calls of the device as [Config].Calls, and what a store that is [Described] holds by
// [Store.Device].
func ServeReporting(open func(settings []byte, to Reporter) (keystore.Store, error)) error {
	// The parent ends it, at the right time, also where a terminal or systemd signal both.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer endOrphaned()()
	_ = Hide() // a library that crashes leaves no core with the PIN, where the system can do that
	debug.SetGCPercent(gcPercent)
	// A lane that waits in the kernel must not take the place of another.
	runtime.GOMAXPROCS(runtime.NumCPU() + maxLanes)
	control, err := controlOf(os.NewFile(controlFD, "control"))
	if err != nil {
		return err
	}
	defer control.Close()
	settings, err := readSettings(control)
	if err != nil {
		return err
	}
	chosen, err := readSettings(control)
	if err != nil {
		return err
	}
	out := &eventWriter{to: json.NewEncoder(control)}
	told := &report{to: out}
	store, err := open(settings, Reporter{Log: slog.New(&eventHandler{out: out}), Calls: told.add, Login: out.login})
	if err == nil {
		if err = choose(store, chosen); err != nil {
			err = errors.Join(err, store.Close())
		}
	}
	if err != nil {
		return errors.Join(err, out.write(event{Failure: &failure{err.Error(), kindsOf(err)}}))
	}
	if err := out.write(event{Ready: true}); err != nil {
		return errors.Join(err, store.Close())
	}
	done := make(chan struct{})
	defer close(done)
	go told.run(store, done)
	return errors.Join(serveLanes(control, newServer(store)), store.Close())
}

// orphaned is the signal that tells the child that its parent has ended.
const orphaned = syscall.SIGUSR1

// endOrphaned makes the child end with its parent, whatever it does, but not in the middle of a
// login, until stop is called. Otherwise Go ignores that signal.
func endOrphaned() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, orphaned)
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
		case <-signals:
			_, _ = uncut.Wait(uncut.Most)
			os.Exit(1)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
	}
}

func controlOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	control, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("isolated: not a socket of a parent"), c.Close())
	}
	return control, nil
}

// serveLanes takes lanes until the parent closes the control socket.
func serveLanes(control *net.UnixConn, s *server) error {
	var lanes sync.WaitGroup
	defer lanes.Wait()
	for {
		told, rights := make([]byte, 2), make([]byte, syscall.CmsgSpace(len(laneEnd{})*4))
		n, rn, _, _, err := control.ReadMsgUnix(told, rights)
		if errors.Is(err, io.EOF) || n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := passedEnd(rights[:rn])
		if err != nil {
			return err
		}
		if n != len(told) {
			end.close()
			return errMalformed
		}
		l := end.lane()
		if canHold() {
			l.wait = holding
		}
		lanes.Go(func() {
			toldKind(told).settle()
			serveLane(s, l)
		})
	}
}

// holding waits for a request and keeps its turn for a while, of which the child has enough: the
// next request often comes soon.
func holding(fd int, b []byte) (int, error) {
	if hold(fd) {
		return syscall.Read(fd, b)
	}
	return readHeld(fd, b)
}

// passedEnd returns the descriptors that came with a message of the parent.
func passedEnd(rights []byte) (end laneEnd, err error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return end, errMalformed
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(end) {
		return end, errMalformed
	}
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		end[i] = fd
	}
	return end, nil
}

// maxSettings bounds the settings of a store.
const maxSettings = 1 << 20

func readSettings(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxSettings {
		return nil, errMalformed
	}
	settings := make([]byte, n)
	_, err := io.ReadFull(r, settings)
	return settings, err
}

func writeSettings(w io.Writer, settings []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(settings))), settings...))
	return err
}

// An event is what the child tells by itself on the control socket, on a line of JSON:
// first that the store is open or why not, and then what it logs and measures.
type event struct {
	Ready   bool     `json:"ready,omitempty"`
	Failure *failure `json:"failure,omitempty"`
	Log     *logLine `json:"log,omitempty"`
	Calls   []byte   `json:"calls,omitempty"` // see report.add
	Device  *Device  `json:"device,omitempty"`
	Login   *bool    `json:"login,omitempty"` // whether the PIN is being given to the device
}

type failure struct {
	Text  string `json:"text"`
	Kinds uint64 `json:"kinds"`
}

type logLine struct {
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	Names   []string   `json:"names,omitempty"`
	Values  []string   `json:"values,omitempty"`
}

type eventWriter struct {
	mu sync.Mutex
	to *json.Encoder
}

func (w *eventWriter) write(e event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Encode(e)
}

// login tells the parent before a PIN is given, and when the device has answered.
func (w *eventWriter) login(give func() error) error {
	begins, ended := true, false
	if err := w.write(event{Login: &begins}); err != nil {
		return fmt.Errorf("isolated: the PIN is not given: %v: %w", err, keystore.ErrUnavailable)
	}
	defer w.write(event{Login: &ended})
	return give()
}

// maxEvent bounds a line of the child.
const maxEvent = 1 << 20

// events reads what the child tells.
func events(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	return lines
}
