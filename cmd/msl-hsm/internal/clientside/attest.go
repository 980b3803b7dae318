package clientside

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

const (
	attestTime  = 2 * time.Minute // limit for one attestation
	attestAgain = time.Minute     // after one that did not reach the server; doubles each time
)

// Attest starts attesting to the state of this machine, if client.attest says so, and
// returns a function that stops it.
func (a *Agent) Attest(ctx context.Context) (end func()) {
	if a.config.Client.Attest.Every == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.keepAttesting(ctx)
	}()
	return func() { cancel(); <-ended }
}

// keepAttesting attests immediately, and then repeatedly.
func (a *Agent) keepAttesting(ctx context.Context) {
	every, again, told := a.config.Client.Attest.Every, attestAgain, false
	log := bootLog{a: a}
	for {
		err := a.attestOnce(ctx, log.read())
		wait := every - every/10 + rand.N(every/5) // spreads devices that started together
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			a.logAttested(told)
			told, again = true, attestAgain
		case answered(err):
			a.log.Warn("the server does not accept the state of this machine", "error", err)
			told, again = false, attestAgain
		default:
			a.log.Warn("could not attest to the state of this machine", "error", Explain(err, a.config))
			told, wait, again = false, min(wait, again), min(2*again, every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// logAttested logs at a visible level only the first time.
func (a *Agent) logAttested(told bool) {
	say := a.log.Info
	if told {
		say = a.log.Debug
	}
	say("attested to the state of this machine", "pcr", []uint(a.config.Client.Attest.PCR))
}

// answered reports whether an error is a verdict, which will be the same in a minute.
func answered(err error) bool {
	return exit.IsAny(err, identity.ErrPolicy, identity.ErrRevoked, identity.ErrRejected, identity.ErrAttestation,
		identity.ErrKey, identity.ErrMalformed, identity.ErrNotEnrolled, identity.ErrNotInitialized, identity.ErrCleared)
}

// A bootLog is the event log of this start. Without one the machine attests all the same.
type bootLog struct {
	a       *Agent
	missing string // what was logged about it
}

// read returns the log, or nil. Why it cannot be read is logged once.
func (l *bootLog) read() []byte {
	log, err := keys.EventLog(l.a.config, "client.attest.event-log", l.a.config.Client.Attest.EventLog)
	why := ""
	if err != nil {
		why = exit.OneLine(err)
	}
	if why != "" && why != l.missing {
		l.a.log.Warn("this machine attests without the event log of its start", "error", why)
	}
	l.missing = why
	return log
}

func (a *Agent) attestOnce(ctx context.Context, eventLog []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, attestTime)
	defer cancel()
	own := *a.config
	if own.Client.URL, err = own.Client.Attest.Place(own.Client.URL); err != nil {
		return err
	}
	client, err := NewcomerClient(&own)
	if err != nil {
		return err
	}
	defer client.Close()
	m := a.Client.device
	m.Identity.PCRs, m.Identity.EventLog = own.Client.Attest.PCR, eventLog
	err = m.Identity.Attest(ctx, EnrollmentExchange(client, &own))
	if errors.Is(err, identity.ErrMalformed) {
		return errors.Join(err, errors.New("the server may be older than this agent"))
	}
	return err
}
