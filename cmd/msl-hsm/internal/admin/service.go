package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A Service lets other processes administer a running server.
type Service struct {
	State   *State
	Path    string          // of the state file, or empty
	Socket  string          // its path, where there is no state file; empty for none
	Keep    time.Duration   // how long a master token may be used or renewed
	Devices *keys.Authority // enrolls devices here, or nil
	// Tell, if not nil, is told for the audit log what others do here.
	Tell func(auditlog.Record)
	// Pages are answered as well, by their patterns.
	Pages map[string]http.Handler
}

const (
	maxRequest  = 1 << 20 // bytes: a record with a certificate
	maxPassword = 64 << 10
)

// Listen takes requests until it is closed; closing waits briefly for requests in
// progress. If the socket cannot be made, the server runs without it, and a warning is
// logged.
func (s Service) Listen(log *slog.Logger) io.Closer {
	socket := s.Socket
	if s.Path != "" {
		socket = socketOf(s.Path)
	}
	if socket == "" {
		return io.NopCloser(nil)
	}
	l, err := listenPrivately(socket)
	if err != nil {
		log.Warn("commands do not reach this server while it runs", "error", err)
		return io.NopCloser(nil)
	}
	server := &http.Server{
		Handler: s.requests(), ReadHeaderTimeout: patience, ReadTimeout: patience, IdleTimeout: longPatience,
		WriteTimeout: longPatience, ConnContext: withCaller,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), // a handler's panic
	}
	go server.Serve(l)
	return listening{server, l}
}

// A listening server shuts down gracefully.
type listening struct {
	*http.Server
	socket net.Listener
}

// leaving is how long Close waits for requests in progress.
const leaving = 2 * time.Second

// Close waits for the requests in progress, and then cuts them off. The socket is gone
// afterwards, even if the server had not begun to listen on it.
func (l listening) Close() error {
	defer l.socket.Close()
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := l.Shutdown(ctx); err == nil {
		return nil
	}
	return l.Server.Close()
}

// listenPrivately makes a socket that only this user can access from the start: to
// connect, a process needs write permission. It takes the place of a socket at which nobody
// listens any more, and of nothing else.
func listenPrivately(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

func removeStale(socket string) error {
	info, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and no socket: name another path, or remove it", socket)
	}
	if conn, err := net.DialTimeout("unix", socket, dialPatience); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			conn.Close()
		}
		return fmt.Errorf("another server has the socket %s: name one for each", socket)
	}
	return os.Remove(socket)
}

// requests returns the handlers of all requests.
func (s Service) requests() *http.ServeMux {
	m := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, do) })
	}
	handle("GET /alive", func(*http.Request) (any, error) { return nil, nil })
	if s.Path != "" { // what is in etcd commands change there
		s.registryRequests(handle)
		s.keeperRequests(handle)
		s.rotationRequests(handle)
		s.pairRequests(handle)
		m.HandleFunc("GET /state/snapshot", s.sendSnapshot)
	}
	for pattern, page := range s.Pages {
		m.Handle(pattern, page)
	}
	if s.Devices != nil {
		s.enrollmentRequests(handle)
	}
	return m
}

// tell writes to the audit log what a request did, or did not because of err, which it
// returns.
func (s Service) tell(r *http.Request, action, subject string, err error) error {
	if s.Tell != nil {
		s.Tell(told(callerOf(r.Context()), action, subject, err))
	}
	return err
}

// A handleFunc registers the handler for a pattern of [http.ServeMux].
type handleFunc func(pattern string, do func(*http.Request) (any, error))

func answer(w http.ResponseWriter, r *http.Request, do func(*http.Request) (any, error)) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	v, err := do(r)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	p := problemOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(p))
	json.NewEncoder(w).Encode(p)
}

// read decodes the JSON body of a request.
func read[T any](r *http.Request) (v T, err error) {
	if err = json.NewDecoder(r.Body).Decode(&v); err != nil {
		err = fmt.Errorf("request: %w", err)
	}
	return v, err
}

// name returns the name that a request is about.
func name(r *http.Request) string { return r.URL.Query().Get("name") }

func (s Service) registryRequests(handle handleFunc) {
	handle("GET /entities", func(*http.Request) (any, error) { return s.State.Entities() })
	handle("GET /users", func(*http.Request) (any, error) { return s.State.Users() })
	handle("POST /entities", func(r *http.Request) (any, error) {
		e, err := read[state.EntityRecord](r)
		if err != nil {
			return nil, err
		}
		return nil, s.tell(r, entityAdd, e.Identity, s.State.AddEntity(e))
	})
	for _, verb := range []struct {
		pattern, action string
		do              func(name string) error
	}{
		{"DELETE /entities", entityRemove, s.State.RemoveEntity},
		{"POST /entities/revoke", entityRevoke, s.State.RevokeEntity},
		{"POST /entities/unrevoke", entityUnrevoke, s.State.UnrevokeEntity},
		{"DELETE /users", userRemove, s.State.RemoveUser},
		{"POST /users/revoke", userRevoke, s.State.RevokeUser},
		{"POST /users/unrevoke", userUnrevoke, s.State.UnrevokeUser},
	} {
		handle(verb.pattern, func(r *http.Request) (any, error) {
			return nil, s.tell(r, verb.action, name(r), verb.do(name(r)))
		})
	}
	for _, verb := range []struct {
		pattern, action string
		do              func(name string, password []byte) error
	}{
		{"POST /users", userAdd, s.State.AddUser},
		{"PUT /users/password", userPassword, s.State.SetPassword},
	} {
		handle(verb.pattern, func(r *http.Request) (any, error) {
			password, err := secretOf(r)
			if err != nil {
				return nil, err
			}
			defer password.Close()
			return nil, s.tell(r, verb.action, name(r), verb.do(name(r), password.Bytes()))
		})
	}
}

// secretOf reads the body of a request into locked memory.
func secretOf(r *http.Request) (*lockedmem.Buffer, error) {
	if r.ContentLength < 0 || r.ContentLength > maxPassword {
		return nil, fmt.Errorf("request: a password of %d bytes", r.ContentLength)
	}
	b := lockedmem.New(int(r.ContentLength))
	if _, err := io.ReadFull(r.Body, b.Bytes()); err != nil {
		b.Close()
		return nil, fmt.Errorf("request: %w", err)
	}
	return b, nil
}

func (s Service) keeperRequests(handle handleFunc) {
	handle("POST /state/check", func(*http.Request) (any, error) { return reportOn(s.State, s.Devices) })
	handle("POST /state/reauthenticate", func(r *http.Request) (any, error) {
		var records keys.Records
		if s.Devices != nil {
			records = s.Devices.Records
		}
		return nil, renew(context.WithoutCancel(r.Context()), s.State, records)
	})
	handle("POST /state/prune", func(r *http.Request) (any, error) {
		forgotten, err := s.State.Forget(context.WithoutCancel(r.Context()), s.Keep)
		return forgotten, s.tell(r, statePrune, "", err)
	})
}

// sendSnapshot answers with a copy of the state, including its enrollments.
func (s Service) sendSnapshot(w http.ResponseWriter, r *http.Request) {
	f, err := s.snapshot()
	if s.tell(r, stateBackup, "", err) != nil {
		fail(w, err)
		return
	}
	defer f.Close()
	io.Copy(w, f) // the receiver detects an incomplete copy
}

// snapshot makes the copy in a file beside the state that has already been unlinked.
func (s Service) snapshot() (f *os.File, err error) {
	if f, err = os.CreateTemp(filepath.Dir(s.Path), filepath.Base(s.Path)+".backup-*"); err != nil {
		return nil, err
	}
	err = s.State.File.Snapshot(f)
	if devices, has := s.enrollments(); err == nil && has {
		err = attachEnrollments(f.Name(), devices)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// enrollments returns the file of enrollments, if there is one.
func (s Service) enrollments() (f *enroll.File, has bool) {
	if s.Devices == nil {
		return nil, false
	}
	f, has = s.Devices.Records.(*enroll.File)
	return f, has
}

func (s Service) enrollmentRequests(handle handleFunc) {
	d := s.Devices
	handle("POST /enrollments/page", func(r *http.Request) (any, error) {
		q, err := read[enroll.Query](r)
		if err != nil {
			return nil, err
		}
		return d.Page(r.Context(), q)
	})
	handle("POST /enrollments/find", func(r *http.Request) (any, error) {
		what, err := read[wanted](r)
		if err != nil {
			return nil, err
		}
		return d.Find(r.Context(), what.Device)
	})
	handle("POST /enrollments/approve", func(r *http.Request) (any, error) {
		list, err := read[approvals](r)
		if err != nil {
			return nil, err
		}
		return problemsOf(d.ApproveAll(context.WithoutCancel(r.Context()), list.Devices)), nil
	})
	handle("GET /enrollments/crl", func(r *http.Request) (any, error) { return d.CRL(r.Context()) })
	handle("POST /enrollments", func(r *http.Request) (any, error) {
		c, err := read[EnrollmentChange](r)
		if err != nil {
			return nil, err
		}
		return nil, s.tell(r, "enrollment "+c.Verb, c.Device+c.Serial, decide(context.WithoutCancel(r.Context()), d.Authority, c))
	})
	handle("POST /enrollments/certified", func(r *http.Request) (any, error) {
		k, err := read[fleet.CertifiedKey](r)
		if err != nil {
			return nil, err
		}
		return nil, k.Check(r.Context(), d.Authority)
	})
}
