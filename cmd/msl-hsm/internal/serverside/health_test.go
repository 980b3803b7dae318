package serverside

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

func TestCertificateHealth(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		begins, ends   time.Duration
		worst, verdict Verdict
		detail         string
	}{
		{-time.Hour, 90 * 24 * time.Hour, Failure, OK, "a.crt expires 2030-04-01"},
		{-time.Hour, 13 * 24 * time.Hour, Failure, Warning, "a.crt expires 2030-01-14 00:00:00: replace it and run msl-hsm admin reload"},
		{-time.Hour, -time.Second, Failure, Failure, "replace it and run msl-hsm admin reload, or correct the clock, which says "},
		{-time.Hour, -time.Second, Warning, Warning, "replace it and run msl-hsm admin reload, or correct the clock, which says "},
		{time.Hour, 90 * 24 * time.Hour, Failure, Failure, "check the clock"},
	} {
		leaf := &x509.Certificate{NotBefore: now.Add(c.begins), NotAfter: now.Add(c.ends)}
		s := &Service{certificates: []certificateFile{{"server.tls.certificates", "a.crt", leaf, c.worst, reloadCertificate}}}
		got := s.checkCertificates(now)[0]
		if got.Verdict != c.verdict || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("ends in %v: %+v", c.ends, got)
		}
	}
}

// TestCAHealth warns of the certificate that a reload does not replace, with what does.
func TestCAHealth(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, ends := range []time.Duration{-time.Second, 13 * 24 * time.Hour} {
		s := &Service{base: &base{Devices: &keys.Authority{CA: &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ends)}}}}
		noteCA(s, "ca.pem")
		if got := s.checkCertificates(now)[0]; got.Name != "server.enrollment.ca" || got.Verdict != Warning || !strings.Contains(got.Detail, "no server starts with an expired one: ") || !strings.Contains(got.Detail, "restart the server") {
			t.Errorf("it ends in %v: %+v", ends, got)
		}
		if got := s.certificateValues(); len(got) != 1 || got[0].Labels[1] != [2]string{"file", "ca.pem"} {
			t.Errorf("metrics: %+v", got)
		}
	}
}

// TestRevocationHealth warns of lists before they end: those of an authority that makes one each
// day, and those of one that makes one each year.
func TestRevocationHealth(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		age, left time.Duration
		verdict   Verdict
		detail    string
	}{
		{time.Hour, day, OK, "crl.pem is up to date until 20"},
		{day, time.Hour, Warning, "crl.pem is up to date only until 20"},
		{100 * day, 15 * day, OK, "is up to date until 20"},
		{350 * day, 13 * day, Warning, "put the authority's next list in its place"},
		{day, -time.Hour, Warning, "its certificates are refused until the file has a newer list"},
	} {
		s := &Service{crls: map[string]*keys.CRLFile{}}
		path, issuer := revocationList(t, c.age, c.left)
		if _, err := s.openCRLs("server.x509-crl", path, []*x509.Certificate{issuer}, nil); err != nil {
			t.Fatal(err)
		}
		got := checkRevocations(s.revoking)[0]
		if got.Verdict != c.verdict || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("made %v ago, with %v left: %+v", c.age, c.left, got)
		}
		values := s.certificateValues()
		if len(values) != 2 || values[1].Value-values[0].Value != (c.age+c.left).Seconds() {
			t.Errorf("made %v ago, with %v left: %+v", c.age, c.left, values)
		}
	}
}

// revocationList makes an authority, and a file with its list.
func revocationList(t *testing.T, age, left time.Duration) (path string, issuer *x509.Certificate) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "crl.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "one"}, SubjectKeyId: []byte{1}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, issuer, issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if issuer, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-age), NextUpdate: now.Add(left)}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, issuer
}

// TestStateHealth remembers for a while that the state could not be written.
func TestStateHealth(t *testing.T) {
	s := &Service{base: &base{}}
	failed := errors.New("no space left on device")
	metered := meteredState{nil, metrics.New("", ""), &s.stateSince, &s.stateFailed, &s.stateLost, nil}
	metered.note("renew", time.Now(), failed)
	if got := s.checkState(t.Context()); got.Verdict != Failure || !strings.Contains(got.Detail, "renew failed") || !strings.Contains(got.Detail, "no space left") {
		t.Errorf("%+v", got)
	}
	metered.note("accept-id", time.Now(), nil)
	if _, got := s.recentFailure(); got != nil {
		t.Errorf("after another one was written: %+v", got)
	}
	began := time.Now()
	s.stateBack()
	metered.note("renew", began, failed)
	if _, got := s.recentFailure(); got != nil {
		t.Errorf("it began while the state was lost: %+v", got)
	}
	metered.note("renew", time.Now(), failed)
	if _, got := s.recentFailure(); got == nil {
		t.Error("it failed since the state is back, and is forgotten")
	}
}

// TestSlowPeerHealth has the time for messages end during steps: a server stays ready if the peer was
// slow, and not if the state was.
func TestSlowPeerHealth(t *testing.T) {
	s := &Service{base: &base{}}
	metered := meteredState{nil, metrics.New("", ""), &s.stateSince, &s.stateFailed, &s.stateLost, nil}
	metered.note("accept-id", time.Now(), context.DeadlineExceeded)
	if _, got := s.recentFailure(); got != nil {
		t.Errorf("the peer was slow: %+v", got)
	}
	metered.note("accept-id", time.Now().Add(-2*slowStep), context.DeadlineExceeded)
	if _, got := s.recentFailure(); got == nil {
		t.Error("the state was slow, and nobody knows")
	}
}

func TestClockHealth(t *testing.T) {
	for apart, want := range map[time.Duration]string{0: "", 11 * time.Minute: "is 11m0s ahead of the one here", -24 * time.Hour: "is 24h0m0s behind the one here"} {
		got := checkClock(apart)
		if (len(got) == 0) != (want == "") || want != "" && (got[0].Verdict != Warning || !strings.Contains(got[0].Detail, want)) {
			t.Errorf("%v apart: %+v", apart, got)
		}
	}
}

// TestStateOutage has every message fail while the disk does: the log says that once, and once that
// it is over.
func TestStateOutage(t *testing.T) {
	var log bytes.Buffer
	s := &Service{base: &base{}}
	metered := meteredState{nil, metrics.New("", ""), &s.stateSince, &s.stateFailed, &s.stateLost, slog.New(slog.NewTextHandler(&log, nil))}
	step := func(err error) {
		began := time.Now()
		metered.note("accept-id", began, err)
	}
	step(context.DeadlineExceeded)                       // of a slow peer
	step(fmt.Errorf("state: renew: %w", state.ErrNewer)) // of one device
	for range 3 {
		step(errors.New("no space left on device"))
	}
	step(msl.ErrMessageReplayed) // is found without writing
	if got := log.String(); strings.Count(got, "level=ERROR msg=\"the state cannot be used: free disk space, ") != 1 || strings.Count(got, "\n") != 1 {
		t.Error(got)
	}
	for range 3 {
		step(nil)
	}
	step(errors.New("no space left on device"))
	if got := log.String(); strings.Count(got, "level=INFO msg=\"the state can be used again\"") != 1 || strings.Count(got, "\n") != 3 {
		t.Error(got)
	}
}

// TestStateReadOutage has the state be unreadable for a while at a server that writes nothing to it:
// the first message that it can be read for ends that.
func TestStateReadOutage(t *testing.T) {
	var log bytes.Buffer
	s := &Service{base: &base{}}
	metered := meteredState{nil, metrics.New("", ""), &s.stateSince, &s.stateFailed, &s.stateLost, slog.New(slog.NewTextHandler(&log, nil))}
	gone := errors.New("server.db no longer exists")
	metered.note("revoked", time.Now(), gone)
	metered.note("renewable", time.Now(), nil)
	if _, failed := s.recentFailure(); failed == nil || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("after another step: %v\n%s", failed, &log)
	}
	metered.note("revoked", time.Now(), nil)
	if _, failed := s.recentFailure(); failed != nil || strings.Count(log.String(), "the state can be used again") != 1 {
		t.Errorf("after the same step: %v\n%s", failed, &log)
	}
}

// TestStateAlternates has every second message fail, as on a disk that is nearly full: nobody is told
// by turns that the state works and that it does not.
func TestStateAlternates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &Service{base: &base{}}
		metered := meteredState{nil, metrics.New("", ""), &s.stateSince, &s.stateFailed, &s.stateLost, slog.New(slog.NewTextHandler(&log, nil))}
		ready, changes := true, 0
		step := func(err error) {
			time.Sleep(50 * time.Millisecond)
			metered.note("accept-id", time.Now(), err)
			_, failed := s.recentFailure()
			_, out := s.stateFailed.Last()
			if now := failed == nil && out == nil; now != ready {
				ready, changes = now, changes+1
			}
		}
		for range 1000 {
			step(errors.New("no space left on device"))
			step(nil)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 || changes != 3 || ready {
			t.Errorf("%d changes, ready at the end: %t; log:\n%s", changes, ready, &log)
		}
		for range 400 {
			step(nil)
		}
		if n := strings.Count(log.String(), "\n"); n != 4 || changes != 4 || !ready {
			t.Errorf("once all are written: %d changes, ready: %t; log:\n%s", changes, ready, &log)
		}
	})
}

// TestKeysHealth tells for a while of a message that failed for a key, though the one that is
// asked signs.
func TestKeysHealth(t *testing.T) {
	s := &Service{base: &base{Metrics: metrics.New("", ""), access: accessLog{log: slog.New(slog.DiscardHandler)}}, MSL: &msl.Server{Issuer: &msl.Issuer{}}, heartbeat: heartbeat{sum: (&fakeKey{}).Sum}}
	if got := s.checkKeyStore(t.Context()); got.Verdict != OK {
		t.Errorf("%+v", got)
	}
	s.report(t.Context(), msl.Served{Fault: msl.FaultPeer, Err: errors.New("a stranger")})
	if got := s.checkKeyStore(t.Context()); got.Verdict != OK {
		t.Errorf("the fault of a peer: %+v", got)
	}
	s.report(t.Context(), msl.Served{Fault: msl.FaultKeyStore, Err: errors.New("key is gone")})
	if got := s.checkKeyStore(t.Context()); got.Verdict != Warning || !strings.Contains(got.Detail, "a message failed ") || !strings.Contains(got.Detail, "s ago: key is gone; msl-hsm doctor") {
		t.Errorf("%+v", got)
	}
}

func TestLeaving(t *testing.T) {
	s := &Service{base: &base{}}
	if got := s.checkServer(); got.Verdict != OK {
		t.Errorf("%+v", got)
	}
	s.Leave()
	if got := s.checkServer(); got.Verdict != Failure {
		t.Errorf("%+v", got)
	}
}
