package admin

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Actor says on whose behalf this process works.
func Actor() string { return fmt.Sprintf("uid %d pid %d", os.Getuid(), os.Getpid()) }

// CommandLog is the audit log of commands that change something without the server, or
// "".
func CommandLog(c *config.Config) string {
	if c.Server.Audit.File == "" {
		return ""
	}
	return c.Server.Audit.File + ".commands"
}

// busyCommand is how long a command waits for another one that is writing the log, and
// lookAgain how often it checks.
const (
	busyCommand = 5 * time.Second
	lookAgain   = 20 * time.Millisecond
)

// openCommands opens the audit log of commands, which write it one at a time.
func openCommands(c *config.Config, signer crypto.Signer) (l *auditlog.Log, err error) {
	for end := time.Now().Add(busyCommand); ; time.Sleep(lookAgain) {
		l, err = auditlog.Open(auditlog.Config{Path: CommandLog(c), Signer: signer, Size: c.Server.Audit.Size, Log: c.Keystore.Log})
		if !errors.Is(err, auditlog.ErrInUse) || time.Now().After(end) {
			return l, err
		}
	}
}

// Tell records in the audit log what a command has done without the server, or has not
// done because of err, which it returns. Without a signer, the server signs the record
// when it starts.
func Tell(c *config.Config, signer crypto.Signer, action, subject string, err error) error {
	if CommandLog(c) == "" {
		return err
	}
	l, errLog := openCommands(c, signer)
	if errLog == nil {
		l.Record(told(Actor(), action, subject, err))
		errLog = l.Close()
	}
	if errLog != nil && err == nil {
		return exit.WithCode(fmt.Errorf("%s was done, but is not in the audit log: %w", action, errLog), exit.Failure)
	}
	return err
}

// told is the record of something that was done or not.
func told(by, action, subject string, err error) auditlog.Record {
	r := auditlog.Record{Event: "admin", By: by, Action: action, Subject: subject, Result: "done"}
	if err != nil {
		r.Result, r.Error = "failed", exit.OneLine(err)
	}
	return r
}

// SignCommands signs what commands wrote without the key.
func SignCommands(c *config.Config, signer crypto.Signer) error {
	if _, err := os.Stat(CommandLog(c)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := openCommands(c, signer)
	if err != nil {
		return err
	}
	return l.Close()
}

// An auditedRegistry records changes in the audit log.
type auditedRegistry struct {
	*State
	c *config.Config
}

func (r auditedRegistry) tell(action, subject string, err error) error {
	return Tell(r.c, nil, action, subject, err)
}

// AddEntity is recorded.
func (r auditedRegistry) AddEntity(e state.EntityRecord) error {
	return r.tell(entityAdd, e.Identity, r.State.AddEntity(e))
}

// RemoveEntity is recorded.
func (r auditedRegistry) RemoveEntity(name string) error {
	return r.tell(entityRemove, name, r.State.RemoveEntity(name))
}

// RevokeEntity is recorded.
func (r auditedRegistry) RevokeEntity(name string) error {
	return r.tell(entityRevoke, name, r.State.RevokeEntity(name))
}

// UnrevokeEntity is recorded.
func (r auditedRegistry) UnrevokeEntity(name string) error {
	return r.tell(entityUnrevoke, name, r.State.UnrevokeEntity(name))
}

// AddUser is recorded.
func (r auditedRegistry) AddUser(name string, password []byte) error {
	return r.tell(userAdd, name, r.State.AddUser(name, password))
}

// RemoveUser is recorded.
func (r auditedRegistry) RemoveUser(name string) error {
	return r.tell(userRemove, name, r.State.RemoveUser(name))
}

// SetPassword is recorded.
func (r auditedRegistry) SetPassword(name string, password []byte) error {
	return r.tell(userPassword, name, r.State.SetPassword(name, password))
}

// RevokeUser is recorded.
func (r auditedRegistry) RevokeUser(name string) error {
	return r.tell(userRevoke, name, r.State.RevokeUser(name))
}

// UnrevokeUser is recorded.
func (r auditedRegistry) UnrevokeUser(name string) error {
	return r.tell(userUnrevoke, name, r.State.UnrevokeUser(name))
}

// Operators' actions, as named in the audit log.
const (
	entityAdd      = "entity add"
	entityRemove   = "entity remove"
	entityRevoke   = "entity revoke"
	entityUnrevoke = "entity unrevoke"
	userAdd        = "user add"
	userRemove     = "user remove"
	userPassword   = "user password"
	userRevoke     = "user revoke"
	userUnrevoke   = "user unrevoke"
	stateBackup    = "state backup"
	statePrune     = "state prune"
)
