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
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A Service is what others reach of a running server.
type Service struct {
	State   *bolt.Server
	Path    string          // of the state file
	Keep    time.Duration   // how long a master token may be used or renewed
	Devices *keys.Authority // that enrolls devices here, or nil
}

const (
	maxRequest  = 1 << 20 // bytes: a record with a certificate
	maxPassword = 64 << 10
)

// Listen takes requests until it is closed, which waits for a moment for those under way.
// If the socket cannot be made, the server runs without it, and a warning is logged.
func (s Service) Listen(log *slog.Logger) io.Closer {
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
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelError), // a handler that panics
	}
	go server.Serve(l)
	return listening{server}
}

// A listening server ends gently.
type listening struct{ *http.Server }

// leaving is how long the end waits for requests under way.
const leaving = 2 * time.Second

// Close waits for the requests under way, and then cuts them off.
func (l listening) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := l.Shutdown(ctx); err == nil {
		return nil
	}
	return l.Server.Close()
}

// listenPrivately makes a socket that is for this user alone from the start: a
// process that connects to one needs to be able to write to it.
func listenPrivately(path string) (net.Listener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

// requests are all that can be asked.
func (s Service) requests() *http.ServeMux {
	m := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, do) })
	}
	handle("GET /alive", func(*http.Request) (any, error) { return nil, nil })
	s.registryRequests(handle)
	s.keeperRequests(handle)
	m.HandleFunc("GET /state/snapshot", s.sendSnapshot)
	if s.Devices != nil {
		s.enrollmentRequests(handle)
	}
	return m
}

// A handleFunc says what answers a pattern of [http.ServeMux].
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

// read is the JSON of a request.
func read[T any](r *http.Request) (v T, err error) {
	if err = json.NewDecoder(r.Body).Decode(&v); err != nil {
		err = fmt.Errorf("request: %w", err)
	}
	return v, err
}

// name is whom a request is about.
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

// secretOf is the body of a request, in locked memory.
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

// sendSnapshot answers with a copy of the state, and the enrollments in it.
func (s Service) sendSnapshot(w http.ResponseWriter, _ *http.Request) {
	f, err := s.snapshot()
	if err != nil {
		fail(w, err)
		return
	}
	defer f.Close()
	io.Copy(w, f) // what breaks off is checked where it arrives
}

// snapshot makes the copy in a file beside the state that has no name any more.
func (s Service) snapshot() (f *os.File, err error) {
	if f, err = os.CreateTemp(filepath.Dir(s.Path), filepath.Base(s.Path)+".backup-*"); err != nil {
		return nil, err
	}
	err = s.State.Snapshot(f)
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
