package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// A Service lets other processes administer a running server.
type Service struct {
	State   *State
	Path    string          // of the state file, or empty
	Socket  string          // its path, if there is no state file; empty for none
	Keep    time.Duration   // how long a master token may be used or renewed
	Devices *keys.Authority // enrolls devices here, or nil
	// Tell, if not nil, is called with what others do here, for the audit log.
	Tell func(auditlog.Record)
	// Pages are also served, by pattern.
	Pages map[string]http.Handler
}

const (
	maxRequest  = 1 << 20 // bytes: a record with a certificate
	maxPassword = 64 << 10
)

// tell records in the audit log what a request did, or did not do because of err, which
// it returns.
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
	w.WriteHeader(statusOf(err))
	json.NewEncoder(w).Encode(p)
}

// read decodes the JSON body of a request.
func read[T any](r *http.Request) (v T, err error) {
	if err = json.NewDecoder(r.Body).Decode(&v); err != nil {
		err = requestError{fmt.Errorf("request: the body is not the JSON that this call takes: %w", err)}
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
		_, _ = io.CopyN(io.Discard, r.Body, 16*maxPassword) // else the connection ends before the client reads the answer
		return nil, requestError{fmt.Errorf("request: a password of %d bytes: want at most %d, with a Content-Length", r.ContentLength, maxPassword)}
	}
	b := lockedmem.New(int(r.ContentLength))
	if _, err := io.ReadFull(r.Body, b.Bytes()); err != nil {
		b.Close()
		return nil, requestError{fmt.Errorf("request: the body ended early: %w", err)}
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
	if f, err = throwaway.File(filepath.Dir(s.Path), filepath.Base(s.Path)+".backup-"); err != nil {
		return nil, err
	}
	err = s.State.File.Snapshot(f)
	if devices, has := s.enrollments(); err == nil && has {
		err = attachEnrollments(f.Name(), devices)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err = errors.Join(err, throwaway.Remove(f.Name())); err != nil {
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
