package bolt

import (
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/boltkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Server is the state of a server, in a file. It is safe for concurrent use.
type Server struct {
	*state.Server
	db *boltkv.DB
}

// OpenServer opens the file at path, or creates it in an existing directory. It is for
// a program that cannot know whether it runs for the first time; the drawback is that a
// wrong path creates a new state. See [ReopenServer]. A file that another process has
// open is [ErrInUse], after a short while; an empty file is [ErrEmpty].
func OpenServer(path string) (*Server, error) { return serverAt(path, boltkv.OpenOrCreate) }

// ReopenServer opens the existing file at path. If there is none, the error is
// fs.ErrNotExist.
func ReopenServer(path string) (*Server, error) { return serverAt(path, boltkv.OpenExisting) }

// CreateServer creates the file at path. If it already exists, the error is
// [ErrExists].
func CreateServer(path string) (*Server, error) { return serverAt(path, boltkv.CreateNew) }

func serverLayout() boltkv.Layout {
	return boltkv.Layout{
		Kind:     "server",
		Name:     "state file",
		Tables:   state.ServerTables(),
		Strict:   true,
		LockWait: 2 * time.Second,
		Explain: advice{
			holder: "another msl-hsm serve or admin command",
			remedy: "restore it from a backup and make new issuer keys",
		}.explain,
	}
}

func serverAt(path string, how boltkv.Opening) (*Server, error) {
	db, err := boltkv.Open(path, serverLayout(), how)
	if err != nil {
		return nil, err
	}
	s, err := state.NewServer(db)
	if err != nil {
		db.Close()
		return nil, serverLayout().Explain(path, err)
	}
	return &Server{s, db}, nil
}

// Close ends pruning, waits for running transactions and closes the file.
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
