package serverside

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/outage"
)

// A Readiness says whether a server can answer messages, and why not.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

const (
	// fresh is how long the key store's answer counts: queries of the readiness must not
	// occupy the device.
	fresh = time.Second
	// patience is how long to wait for that answer.
	patience = 2 * time.Second
	// recently is how long a failure of the state counts. After that, messages may try
	// whether it works again.
	recently = 10 * time.Second
	// soon is the remaining life of a certificate below which it deserves a warning.
	soon = 14 * 24 * time.Hour
)

// behindText is what a token proves that was renewed without a record of that.
const behindText = "a token was renewed that the state has no record of, so the state is an older copy, or was restored with --keep-tokens: earlier messages may be accepted again, and later revocations are lost; stop the servers, and restore the newest backup, or one that you make now, with msl-hsm state restore, or in etcd with state export and state import, which end the earlier tokens"

// Ready makes the checks.
func (s *Service) Ready(ctx context.Context) Readiness {
	checks := []Check{s.checkServer(), s.checkKeyStore(ctx), s.checkState(ctx)}
	if s.pairing != "" {
		checks = append(checks, Check{pairName, Warning, s.pairing})
	}
	if who := s.stateBehind.Load(); who != nil {
		checks = append(checks, Check{"state is behind", Warning, "entity " + exit.Printable(*who) + ": " + behindText})
	}
	checks = append(checks, checkClock(s.State.ClockApart())...)
	checks = append(checks, checkTokens(s.Store)...)
	checks = append(checks, s.checkCertificates(time.Now())...)
	checks = append(checks, checkStaples(s.stapled)...)
	checks = append(checks, checkRevocations(s.revoking)...)
	checks = append(checks, s.checkUpstream()...)
	checks = append(checks, s.audit.check()...)
	checks = append(checks, checkAccessLog(s.access)...)
	r := Readiness{Ready: true, Checks: checks}
	for _, c := range checks {
		r.Ready = r.Ready && c.Verdict != Failure
	}
	return r
}

// Leave makes the server report from now on that it is not ready.
func (s *Service) Leave() { s.leaving.Store(true) }

// Alive reports whether the state answers at all, even with an error.
func (s *Service) Alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.checkState(ctx).Detail != silent
}

// pairName is the name of the check that the state belongs to the keys.
const pairName = "state and keys"

// silent is the detail of a state that does not answer.
const silent = "it has not answered for a while"

func (s *Service) checkServer() Check {
	if s.leaving.Load() {
		return Check{"server", Failure, "it is stopping"}
	}
	return Check{"server", OK, "it accepts messages"}
}

// A heartbeat occasionally uses a key in the device.
type heartbeat struct {
	sum func(data []byte) ([]byte, error) // by the key that issues
	glance[struct{}]
	outage outage.Outage
}

// beat uses the key, unless that was just done, and waits for the result.
func (h *heartbeat) beat(ctx context.Context) error {
	_, _, err := h.look(ctx, fresh, func() (struct{}, error) { return struct{}{}, h.try() })
	if err == nil {
		err = stillOut(&h.outage)
	}
	return err
}

// try uses the key. Only what comes of that counts for the outage: anyone may ask, and go away
// before the answer.
func (h *heartbeat) try() error {
	began := time.Now()
	_, err := h.sum([]byte("msl-hsm health"))
	if took := time.Since(began); err == nil && took > patience { // for whoever asked late, too
		err = fmt.Errorf("the issuer key took %v to sign: check the HSM and the network to it", took.Round(time.Millisecond))
	}
	if err != nil {
		h.outage.Failed(err, untold)
	} else {
		h.outage.Worked(began, untold)
	}
	return err
}

// stillOut returns why something that works counts as failing, or nil.
func stillOut(o *outage.Outage) error {
	at, err := o.Last()
	if err == nil {
		return nil
	}
	return fmt.Errorf("it failed again %v ago, and counts as failing until it has not failed for %v: %w", time.Since(at).Round(time.Second), o.Hold(), err)
}

func (s *Service) checkKeyStore(ctx context.Context) Check {
	if err := s.heartbeat.beat(ctx); err != nil {
		return Check{"keystore", Failure, exit.OneLine(afterMissing(err))}
	}
	var versions []string
	for _, k := range s.MSL.Issuer.Ring() {
		versions = append(versions, fmt.Sprint(k.Version))
	}
	signs := "the issuer key signs; its versions are " + strings.Join(versions, ", ")
	if failed := s.keysFailed.Load(); failed != nil && time.Since(failed.at) < recently {
		return Check{"keystore", Warning, fmt.Sprintf("%s; but a message failed %v ago: %s; msl-hsm doctor tries every key", signs, time.Since(failed.at).Round(time.Second), exit.OneLine(failed.err))}
	}
	return Check{"keystore", OK, signs}
}

// A keysFailure is a message that failed because of a key, or the device with that key:
// possibly another key than the one that health checks use.
type keysFailure struct {
	err error
	at  time.Time
}

// checkTokens reports on each token, if there are several. A server continues as long as
// one works.
func checkTokens(store keys.Store) (checks []Check) {
	for _, t := range keys.Tokens(store) {
		if t.Usable {
			checks = append(checks, Check{"token " + t.Token, OK, "it holds the same keys as the others"})
			continue
		}
		checks = append(checks, Check{"token " + t.Token, Warning, "it is not used: " + exit.OneLine(t.Why)})
	}
	return checks
}

func (s *Service) checkState(ctx context.Context) Check {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if at, failed := s.recentFailure(); failed != nil {
		return Check{"state", Failure, fmt.Sprintf("%s failed %v ago: %s", failed.operation, time.Since(at).Round(time.Second), exit.OneLine(failed.error))}
	}
	done := make(chan error, 1)
	go func() { done <- readState(ctx, s) }()
	select {
	case err := <-done:
		if err != nil {
			return Check{"state", Failure, exit.OneLine(err)}
		}
	case <-ctx.Done():
		return Check{"state", Failure, silent}
	}
	return Check{"state", OK, "it can be read"}
}

// checkClock warns if the clock of another server is too far from the one here.
func checkClock(apart time.Duration) []Check {
	if apart == 0 {
		return nil
	}
	where := "ahead of"
	if apart < 0 {
		where = "behind"
	}
	return []Check{{"clock", Warning, fmt.Sprintf("that of another server of this state is %v %s the one here, which says %s: correct the one that is wrong, and let a time service keep it; beyond ten minutes, some enrollments of devices and renewals of their certificates fail",
		apart.Abs().Round(time.Second), where, time.Now().UTC().Format(time.DateTime))}}
}

// readState reads what messages are judged by.
func readState(ctx context.Context, s *Service) error {
	err := s.State.Revoked(ctx, "", "")
	if err == nil && s.Devices != nil {
		_, err = s.Devices.Standing(ctx, "")
	}
	if err == nil {
		err = tryState(ctx, s)
	}
	return err
}

// tryState ends an outage if nothing is left of it. It writes to a state file: a file system that
// became read-only can still be read, and messages need not try it.
func tryState(ctx context.Context, s *Service) (err error) {
	began := time.Now()
	if _, failed := s.stateFailed.Last(); failed == nil {
		return nil
	}
	if s.State.File != nil {
		_, _, err = s.stateTrial.look(ctx, fresh, func() (struct{}, error) { return struct{}{}, s.State.File.Writable() })
	}
	if err == nil {
		s.metered.worked(trial, began)
	}
	return err
}

// recentFailure returns which step in the state failed and when, if that was recent, or if the
// state must not fail for longer until it counts as working.
func (s *base) recentFailure() (at time.Time, failed *stateFailure) {
	at, err := s.stateFailed.Last()
	if !errors.As(err, &failed) || time.Since(at) >= max(recently, s.stateFailed.Hold()) {
		return at, nil
	}
	return at, failed
}

// checkCertificates reports the certificate that expires first, and each that expires
// soon.
func (s *Service) checkCertificates(now time.Time) (checks []Check) {
	for _, c := range s.certificates {
		verdict, left := OK, c.leaf.NotAfter.Sub(now)
		detail := fmt.Sprintf("%s expires %s", c.file, c.leaf.NotAfter.UTC().Format(time.DateTime))
		switch {
		case left <= 0:
			verdict, detail = c.worst, fmt.Sprintf("%s expired %s: %s, or correct the clock, which says %s", c.file, c.leaf.NotAfter.UTC().Format(time.DateTime), c.next, now.UTC().Format(time.DateTime))
		case now.Before(c.leaf.NotBefore):
			verdict, detail = c.worst, fmt.Sprintf("%s is not valid before %s: check the clock", c.file, c.leaf.NotBefore.UTC().Format(time.DateTime))
		case left < soon:
			verdict, detail = Warning, detail+": "+c.next
		}
		checks = append(checks, Check{c.setting, verdict, detail})
	}
	return checks
}

// A certificateFile is a certificate that the server presents, or with which it issues others.
type certificateFile struct {
	setting, file string
	leaf          *x509.Certificate
	worst         Verdict // once it has expired
	next          string  // the next step before and after that
}

// The next steps for a certificate that expires. The CA of devices keeps its key, so theirs stay
// valid.
const (
	reloadCertificate = "replace it and run msl-hsm admin reload"
	renewCA           = "no certificate of a device outlives it, and no server starts with an expired one: make another with msl-hsm ca init --out FILE, name that in server.enrollment.ca, and in x509-roots if it is there, and restart the server"
)

// noteCA notes the certificate of the CA of devices, which a reload does not replace. Devices with
// sessions do not need it.
func noteCA(s *Service, file string) {
	if ca := s.Devices.CA; ca != nil {
		s.certificates = append(s.certificates, certificateFile{"server.enrollment.ca", file, ca, Warning, renewCA})
	}
}

// checkRevocations reports on each file of revocation lists.
func checkRevocations(files []revocationFile) (checks []Check) {
	for _, f := range files {
		err := f.lists.Check()
		_, due, until := f.lists.Lifetime()
		ends := until.UTC().Format(time.DateTime)
		c := Check{f.setting, OK, fmt.Sprintf("%s is up to date until %s", f.path, ends)}
		switch {
		case err != nil:
			c = Check{f.setting, Warning, exit.OneLine(err)}
		case time.Now().After(due):
			c = Check{f.setting, Warning, fmt.Sprintf("%s is up to date only until %s, and then its certificates are refused: put the authority's next list in its place", f.path, ends)}
		}
		checks = append(checks, c)
	}
	return checks
}

// checkAccessLog reports whether lines are lost, if there is a file.
func checkAccessLog(l accessLog) []Check {
	if l.file == nil {
		return nil
	}
	if at, err := l.file.lost.Last(); err != nil {
		return []Check{{"access log", Warning, fmt.Sprintf("lines were lost %v ago: %v: free disk space, or correct server.access-log", time.Since(at).Round(time.Second), err)}}
	}
	l.file.mu.Lock()
	defer l.file.mu.Unlock()
	if err := l.file.moved; err != nil {
		return []Check{{"access log", Warning, "its lines go to the file that was moved away, since no other can be made: " + err.Error() + ": see that its disk can be written"}}
	}
	return []Check{{"access log", OK, "its lines are written"}}
}

// checkUpstream tells what is known about the service: without server.upstream.check, only
// messages try whether it can be reached.
func (s *Service) checkUpstream() []Check {
	if s.upstream == nil {
		return nil
	}
	states := s.upstream.States()
	var failed []string
	untried := 0
	for _, t := range states {
		switch {
		case t.Err != nil:
			failed = append(failed, fmt.Sprintf("%s: %s (%v ago)", t.Target, exit.OneLine(t.Err), time.Since(t.Tried).Round(time.Second)))
		case t.Tried.IsZero():
			untried++
		}
	}
	switch told := strings.Join(failed, ", "); {
	case len(failed) == len(states):
		return []Check{{"upstream", Warning, "no address could be used: " + told}}
	case len(failed) > 0:
		return []Check{{"upstream", Warning, "some addresses could not be used: " + told}}
	case untried > 0:
		return []Check{{"upstream", OK, fmt.Sprintf("addresses: %d, of which %d were not tried yet: the next message tries one, and msl-hsm doctor all", len(states), untried)}}
	}
	return []Check{{"upstream", OK, fmt.Sprintf("addresses in use: %d", len(states))}}
}
