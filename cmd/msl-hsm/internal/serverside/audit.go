package serverside

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// openAudit opens the audit log, if the configuration names one, and has what commands
// wrote signed.
func (s *base) openAudit(c *config.Config) (err error) {
	own := &c.Server.Audit
	if own.File == "" {
		return nil
	}
	signer, err := keys.AuditKey(c, s.Store)
	if err != nil {
		return err
	}
	s.audit, err = auditlog.Open(auditlog.Config{
		Path: own.File, Signer: signer, Size: own.Size, Records: own.Records, Interval: own.Interval, Log: c.Keystore.Log,
	})
	if err != nil {
		return exit.Usagef("server.audit.file: %w: correct the path, or move the file away", err)
	}
	s.auditRequired = own.Required
	before := s.audit.Last()
	version, revision := buildVersion()
	s.Tell(auditlog.Record{Event: auditlog.EventStart, By: admin.Actor(), Subject: c.Server.Identity, Detail: strings.TrimSpace(version + " " + revision)})
	if s.log = c.Keystore.Log; s.log != nil {
		s.log.Info("audit log", "file", own.File, "goes_on_after", before.String())
	}
	return admin.SignCommands(c, signer)
}

// closeAudit ends the audit log, and tells where: so that its end cannot be cut off
// unnoticed.
func (s *base) closeAudit() error {
	if s.audit == nil {
		return nil
	}
	s.Tell(auditlog.Record{Event: auditlog.EventStop})
	err := s.audit.Close()
	if s.log != nil {
		s.log.Info("audit log", "ends_with", s.audit.Last().String())
	}
	return err
}

// Tell writes a record to the audit log, if there is one.
func (s *base) Tell(r auditlog.Record) {
	if s.audit != nil {
		s.audit.Record(r)
	}
}

// auditMessage writes the record of a message that the server is done with.
func (s *base) auditMessage(v msl.Served) {
	if s.audit != nil {
		s.audit.Record(MessageRecord(v))
	}
}

// MessageRecord is what the audit log has of a message.
func MessageRecord(v msl.Served) auditlog.Record {
	r := auditlog.Record{
		Event: "message", Source: v.Source, Entity: v.Identity, Authenticated: v.Authenticated, User: v.User,
		Scheme: v.Scheme, KeyExchange: v.KeyExchange, KeyVersion: v.KeyVersion, Issued: v.IssuedVersion, Result: resultOf(v),
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

// resultOf says what became of a message.
func resultOf(v msl.Served) string {
	switch {
	case v.Response != 0:
		return "refused"
	case v.Err != nil:
		return "unanswered"
	case v.Message == nil:
		return "handshake"
	}
	return "answered"
}

// auditDevice writes the record of a change to the record of a device.
func (s *base) auditDevice(r enroll.Record) {
	told := auditlog.Record{Event: "enrollment", Subject: r.ID.String(), Entity: r.Name, Result: string(r.State)}
	if n := len(r.Log); n > 0 {
		told.Detail = r.Log[n-1].What
	}
	s.Tell(told)
}

// An auditedState refuses messages while the audit log cannot be written.
type auditedState struct {
	serverState
	log *auditlog.Log
}

// errUnaudited says why a message is refused.
var errUnaudited = errors.New("the audit log cannot be written, and server.audit.required is set")

// Revoked is asked about each message.
func (s auditedState) Revoked(ctx context.Context, identity, user string) error {
	if err := s.log.Err(); err != nil {
		return fmt.Errorf("%w: %w", errUnaudited, err)
	}
	return s.serverState.Revoked(ctx, identity, user)
}

// stateFor returns the state as the messages of a server see it.
func (s *Service) stateFor(c *config.Config) serverState {
	metered := meteredState{s.State, s.Metrics, &s.stateFailed}
	if s.audit == nil || !c.Server.Audit.Required {
		return metered
	}
	return auditedState{metered, s.audit}
}

// checkAudit tells whether the audit log is written.
func (s *Service) checkAudit() []Check {
	if s.audit == nil {
		return nil
	}
	err := s.audit.Err()
	switch {
	case err == nil:
		return []Check{{"audit", OK, fmt.Sprintf("the audit log is written; %d records wait for a signature", s.audit.Unsigned())}}
	case s.auditRequired:
		return []Check{{"audit", Failure, exit.OneLine(fmt.Errorf("%w: %w", errUnaudited, err))}}
	}
	return []Check{{"audit", Warning, exit.OneLine(fmt.Errorf("the audit log cannot be written: %w", err))}}
}

// reopenAudit begins another file if that of the audit log was moved away, and signs with
// the newest version of the key from now on.
func (s *Service) reopenAudit(c *config.Config) error {
	if s.audit == nil {
		return nil
	}
	signer, err := keys.AuditKey(c, s.Store)
	if err != nil {
		return err
	}
	return s.audit.Reopen(signer)
}

// auditValues are those of the audit log.
func (s *Service) auditValues() []metrics.Value {
	if s.audit == nil {
		return nil
	}
	works := 0.0
	if s.audit.Err() == nil {
		works = 1
	}
	return []metrics.Value{
		{Name: "audit_record", Help: "Number of the newest record of the audit log.", Value: float64(s.audit.Last().N)},
		{Name: "audit_unsigned_records", Help: "Records of the audit log that no signature covers yet.", Value: float64(s.audit.Unsigned())},
		{Name: "audit_works", Help: "Whether the audit log can be written and signed.", Value: works},
	}
}
