package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Key authenticates a file, see [state.KeyOf].
type Key = state.Key

// A Guard says how a file is authenticated.
type Guard = authkv.Guard

// A Verdict is the result of checking the authentication of a file.
type Verdict = authkv.Verdict

// Files opens and makes authenticated state files, so that someone who can write one
// cannot lift a revocation or add an entity undetected. Its zero value, which the
// functions of the same names use, opens unauthenticated files.
type Files struct{ Guard Guard }

// A Server is the state of a server, in a file. It is safe for concurrent use.
type Server struct {
	*state.Server
	// Verdict is the result of checking the authentication of the file when it was
	// opened.
	Verdict Verdict
	db      *boltkv.DB
	store   kv.Store // as the guard returned it
}

// OpenServer opens the file at path, or creates it in an existing directory. It is for a
// program that cannot know whether it is running for the first time; the drawback is that
// a wrong path creates a new state. See [ReopenServer]. A file that another process has
// open is [ErrInUse], after a short while; an empty file is [ErrEmpty].
func OpenServer(path string) (*Server, error) { return Files{}.Open(path) }

// ReopenServer opens the existing file at path. If there is none, the error is
// fs.ErrNotExist.
func ReopenServer(path string) (*Server, error) { return Files{}.Reopen(path) }

// CreateServer creates the file at path. If it already exists, the error is
// [ErrExists].
func CreateServer(path string) (*Server, error) { return Files{}.Create(path) }

// Open is [OpenServer] with authentication. Everything except the ids and renewals is
// checked against the root: a file changed by someone without the key is [ErrForged].
// [Guard.Trust] decides about a file without a root. A new file is authenticated.
func (f Files) Open(path string) (*Server, error) {
	s, err := f.Create(path)
	if errors.Is(err, ErrExists) {
		return f.Reopen(path)
	}
	return s, err
}

// Reopen is [ReopenServer] with the checks of Open.
func (f Files) Reopen(path string) (*Server, error) { return f.open(path, path, boltkv.OpenExisting) }

// Create is [CreateServer] for an authenticated file.
func (f Files) Create(path string) (*Server, error) {
	f.Guard.Trust = authkv.Vouch
	return f.open(path, path, boltkv.CreateNew)
}

func serverLayout() boltkv.Layout {
	return boltkv.Layout{
		Kind:     "server",
		Name:     "state file",
		Tables:   state.ServerTables(),
		Strict:   true,
		Newest:   lastingVersion,
		LockWait: 2 * time.Second,
		Explain: advice{
			holder: "another server or command",
			remedy: "correct the path, or restore it from a backup and make new issuer keys",
		}.explain,
	}
}

// open opens the file at path; errors of the guard call it name.
func (f Files) open(path, name string, how boltkv.Opening) (*Server, error) {
	db, err := boltkv.Open(path, serverLayout(), how)
	if err != nil {
		return nil, err
	}
	s := &Server{db: db}
	if err = db.View(context.Background(), kv.Copied); err != nil {
		return nil, errors.Join(serverLayout().Explain(path, err), db.Close())
	}
	if err := f.guard(s); err != nil {
		err = errors.Join(explainGuard(name, err), db.Close())
		if how == boltkv.CreateNew {
			err = errors.Join(err, os.Remove(path))
		}
		return nil, err
	}
	if s.Server, err = state.NewServer(s.store); err != nil {
		return nil, errors.Join(serverLayout().Explain(path, err), db.Close())
	}
	return s, nil
}

// The versions of files whose records are authenticated: first all of them, then all except
// those of ids and renewals.
const (
	authenticatedVersion = 2
	lastingVersion       = 3
)

// guard authenticates the records. A caller that only judges a file leaves it as it is.
func (f Files) guard(s *Server) error {
	store, verdict, err := f.Guard.Over(context.Background(), s.db, state.LastingTables(), state.TokenTables())
	if err == nil && verdict.Authentic {
		version := lastingVersion
		if f.Guard.Trust == authkv.Judge {
			version = authenticatedVersion
		}
		err = s.db.Raise(version)
	}
	s.store, s.Verdict = store, verdict
	return err
}

// VerifyRecords reads everything except the records of ids and renewals, and checks that
// it is authentic: otherwise the error is [ErrForged]. For an unauthenticated file it
// does nothing.
func (s *Server) VerifyRecords(ctx context.Context) error { return authkv.Verify(ctx, s.store) }

// Reauthenticate makes the newest version of the key authenticate the file, if it is
// authenticated.
func (s *Server) Reauthenticate(ctx context.Context) error { return authkv.Renew(ctx, s.store) }

// Writable returns why the file cannot be written, by writing a transaction that changes no
// record.
func (s *Server) Writable() error {
	if err := s.db.Writable(); err != nil {
		return fmt.Errorf("bolt: write the state: %w", err)
	}
	return nil
}

// Close stops pruning, waits for running transactions and closes the file.
func (s *Server) Close() error {
	s.StopPruning()
	return s.db.Close()
}

// Snapshot writes the current state to w, as a file that can be opened. It does not
// block writers.
func (s *Server) Snapshot(w io.Writer) error {
	if err := s.db.Snapshot(w); err != nil {
		return fmt.Errorf("bolt: copy the state: %w", err)
	}
	return nil
}

// Summary reads and parses every record. Inconsistent records are [ErrDamaged]. Latest
// is when a token was last renewed or used with a non-replayable id.
func (s *Server) Summary() (sum state.Summary, err error) {
	if sum, err = s.Server.Summary(); err != nil {
		return sum, err
	}
	if sum.Bytes, err = s.db.Size(); err != nil {
		return sum, fmt.Errorf("bolt: read the state: %w", err)
	}
	return sum, nil
}

// Check reads every record, and all pages of the file in a temporary copy in the same
// directory, and returns a summary.
func (s *Server) Check() (sum state.Summary, err error) {
	if sum, err = s.Summary(); err != nil {
		return sum, err
	}
	sum.Free, err = s.db.Free()
	return sum, err
}
