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
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A Service lets other processes administer a running server.
type Service struct {
	State   *State
	Path    string          // of the state file, or empty
	Keep    time.Duration   // how long a master token may be used or renewed
	Devices *keys.Authority // enrolls devices here, or nil
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
	if s.Path == "" { // a state in etcd, which other processes can change
		return io.NopCloser(nil)
	}
	socket := socketOf(s.Path)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("entities and users cannot be changed while this server runs", "error", err)
		return io.NopCloser(nil)
	}
	l, err := listenPrivately(socket)
	if err != nil {
		log.Warn("entities and users cannot be changed while this server runs", "error", err)
		return io.NopCloser(nil)
	}
	server := &http.Server{
		Handler: s.requests(), ReadHeaderTimeout: patience, ReadTimeout: patience, IdleTimeout: longPatience,
		WriteTimeout: longPatience,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelError), // a handler's panic
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
// connect, a process needs write permission.
func listenPrivately(path string) (net.Listener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

// requests returns the handlers of all requests.
func (s Service) requests() *http.ServeMux {
	m := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, do) })
	}
	handle("GET /alive", func(*http.Request) (any, error) { return nil, nil })
	s.registryRequests(handle)
	s.keeperRequests(handle)
	s.rotationRequests(handle)
	m.HandleFunc("GET /state/snapshot", s.sendSnapshot)
	for pattern, page := range s.Pages {
		m.Handle(pattern, page)
	}
	if s.Devices != nil {
		s.enrollmentRequests(handle)
	}
	return m
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
		return nil, s.State.AddEntity(e)
	})
	for pattern, do := range map[string]func(name string) error{
		"DELETE /entities":        s.State.RemoveEntity,
		"POST /entities/revoke":   s.State.RevokeEntity,
		"POST /entities/unrevoke": s.State.UnrevokeEntity,
		"DELETE /users":           s.State.RemoveUser,
		"POST /users/revoke":      s.State.RevokeUser,
		"POST /users/unrevoke":    s.State.UnrevokeUser,
	} {
		handle(pattern, func(r *http.Request) (any, error) { return nil, do(name(r)) })
	}
	for pattern, do := range map[string]func(name string, password []byte) error{
		"POST /users":         s.State.AddUser,
		"PUT /users/password": s.State.SetPassword,
	} {
		handle(pattern, func(r *http.Request) (any, error) {
			password, err := secretOf(r)
			if err != nil {
				return nil, err
			}
			defer password.Close()
			return nil, do(name(r), password.Bytes())
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
	handle("POST /state/prune", func(r *http.Request) (any, error) { return s.State.Forget(context.WithoutCancel(r.Context()), s.Keep) })
}

// sendSnapshot answers with a copy of the state, including its enrollments.
func (s Service) sendSnapshot(w http.ResponseWriter, _ *http.Request) {
	f, err := s.snapshot()
	if err != nil {
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
	if err == nil && s.Devices != nil {
		err = attachEnrollments(f.Name(), s.Devices.File)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s Service) enrollmentRequests(handle handleFunc) {
	d := s.Devices
	handle("GET /enrollments", func(r *http.Request) (any, error) { return d.List(r.Context()) })
	handle("GET /enrollments/crl", func(r *http.Request) (any, error) { return d.CRL(r.Context()) })
	handle("POST /enrollments", func(r *http.Request) (any, error) {
		c, err := read[EnrollmentChange](r)
		if err != nil {
			return nil, err
		}
		return nil, decide(context.WithoutCancel(r.Context()), d.Authority, c)
	})
	handle("POST /enrollments/certified", func(r *http.Request) (any, error) {
		k, err := read[fleet.CertifiedKey](r)
		if err != nil {
			return nil, err
		}
		return nil, k.Check(r.Context(), d.Authority)
	})
}
