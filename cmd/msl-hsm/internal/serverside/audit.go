package serverside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// An audit is the audit log of a server, or none.
type audit struct {
	log      *auditlog.Log // nil if there is none
	required bool          // messages are refused while it cannot be written
	told     *slog.Logger  // for where the log begins and ends; may be nil
}

// openAudit opens the audit log, if one is configured, and signs what commands wrote.
func openAudit(c *config.Config, store keys.Store) (a audit, err error) {
	own := &c.Server.Audit
	if own.File == "" {
		return a, nil
	}
	signer, err := keys.AuditKey(c, store)
	if err != nil {
		return a, err
	}
	a.required, a.told = own.Required, c.Keystore.Log
	a.log, err = auditlog.Open(auditlog.Config{
		Path: own.File, Signer: signer, Size: own.Size, Records: own.Records, Interval: own.Interval, Log: c.Keystore.Log,
	})
	if err != nil {
		return a, afterAuditLog(err)
	}
	before := a.log.Last()
	version, revision := buildVersion()
	a.tell(auditlog.Record{Event: auditlog.EventStart, By: admin.Actor(), Subject: c.Server.Identity, Detail: strings.TrimSpace(version + " " + revision)})
	if a.told != nil {
		a.told.Info("audit log", "file", own.File, "continues_after", before.String())
	}
	if err := admin.SignCommands(c, signer); err != nil {
		return a, afterAuditLog(err)
	}
	return a, nil
}

// afterAuditLog adds the next step to the error of an audit log that does not open.
func afterAuditLog(err error) error {
	var refused syscall.Errno
	switch {
	case errors.Is(err, auditlog.ErrInUse):
		return exit.Usagef("server.audit.file: %w: each server needs a file of its own; name another one, or stop that process", err)
	case errors.As(err, &refused): // such as a full disk, about which the command says what to do
		return exit.Usagef("server.audit.file: %w", err)
	}
	return exit.Usagef("server.audit.file: %w: correct the path, or move the file away", err)
}

// Close ends the audit log, and logs where it ends, so that its end cannot be cut off
// undetected.
func (a audit) Close() error {
	if a.log == nil {
		return nil
	}
	a.tell(auditlog.Record{Event: auditlog.EventStop})
	err := a.log.Close()
	if a.told != nil {
		a.told.Info("audit log", "ends_with", a.log.Last().String())
	}
	return err
}

// Tell writes a record to the audit log, if there is one.
func (s *base) Tell(r auditlog.Record) { s.audit.tell(r) }

func (a audit) tell(r auditlog.Record) {
	if a.log != nil {
		a.log.Record(r)
	}
}

// message writes the record of a message that the server has finished with.
func (a audit) message(v msl.Served) {
	if a.log != nil {
		a.log.Record(MessageRecord(v))
	}
}

// MessageRecord is the record of a message in the audit log.
func MessageRecord(v msl.Served) auditlog.Record {
	r := auditlog.Record{
		Event: "message", Source: v.Source, Entity: v.Identity, Authenticated: v.Authenticated, User: v.User,
		Scheme: v.Scheme, KeyExchange: v.KeyExchange, KeyVersion: v.KeyVersion, Issued: v.IssuedVersion, Result: v.Result(),
	}
	if v.MessageID >= 0 {
		r.MessageID = &v.MessageID
	}
	if v.Response != 0 {
		r.Code = int(v.Code)
	}
	if v.Err != nil {
		r.Error = v.Err.Error()
	}
	return r
}

// device writes the record of a change to the record of a device. Another attestation to
// the same state is not a change.
func (a audit) device(r enroll.Record) {
	if r.Attested != nil && r.Attested.Time.After(r.Updated) {
		return
	}
	told := auditlog.Record{Event: "enrollment", Subject: r.ID.String(), Entity: r.Name, Result: string(r.State)}
	if n := len(r.Log); n > 0 {
		told.Detail = r.Log[n-1].What
	}
	a.tell(told)
}

// An auditedState refuses messages while the audit log cannot be written.
type auditedState struct {
	serverState
	log *auditlog.Log
}

// errUnaudited says why a message is refused.
var errUnaudited = errors.New("the audit log cannot be written, and server.audit.required is set")

// Revoked is called for each message.
func (s auditedState) Revoked(ctx context.Context, identity, user string) error {
	if err := s.log.Err(); err != nil {
		return fmt.Errorf("%w: %w", errUnaudited, err)
	}
	return s.serverState.Revoked(ctx, identity, user)
}

// stateFor returns the state as seen by the messages of a server. A shared one logs its
// outages itself.
func stateFor(s *Service, log *slog.Logger) serverState {
	if s.State.File == nil {
		log = nil
	}
	s.metered = meteredState{s.State, s.Metrics, &s.stateSince, &s.stateFailed, &s.stateLost, log}
	if !s.audit.required {
		return s.metered
	}
	return auditedState{s.metered, s.audit.log}
}

// check reports whether the audit log can be written.
func (a audit) check() []Check {
	if a.log == nil {
		return nil
	}
	err := a.log.Err()
	held := stillOut(&a.log.Outage)
	switch {
	case err == nil && held != nil && a.required:
		return []Check{{"audit", Failure, "the audit log: " + exit.OneLine(held)}}
	case err == nil:
		return []Check{{"audit", OK, fmt.Sprintf("the audit log is written; waiting for a signature: %s", exit.Count(a.log.Unsigned(), "record", "records"))}}
	case a.required:
		return []Check{{"audit", Failure, exit.OneLine(fmt.Errorf("%w: %w: free disk space, or fix the cause of the error", errUnaudited, err))}}
	}
	return []Check{{"audit", Warning, exit.OneLine(fmt.Errorf("the audit log cannot be written: %w: free disk space, or fix the cause of the error; records wait in memory", err))}}
}

// reopen starts another file if the audit log's was moved away, and signs with the newest
// version of the key from now on.
func (a audit) reopen(c *config.Config, store keys.Store) error {
	if a.log == nil {
		return nil
	}
	signer, err := keys.AuditKey(c, store)
	if err != nil {
		return err
	}
	return a.log.Reopen(signer)
}

// values are those of the audit log.
func (a audit) values() []metrics.Value {
	if a.log == nil {
		return nil
	}
	works := 0.0
	if a.log.Err() == nil {
		works = 1
	}
	return []metrics.Value{
		{Name: "audit_record", Help: "Number of the newest record of the audit log.", Value: float64(a.log.Last().N)},
		{Name: "audit_unsigned_records", Help: "Records of the audit log that no signature covers yet.", Value: float64(a.log.Unsigned())},
		{Name: "audit_works", Help: "Whether the audit log can be written and signed.", Value: works},
	}
}
