//go:build !noetcd

package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/statetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// places returns places in one cluster.
func places(t *testing.T, open func(context.Context, Config) (*Server, error)) func(t testing.TB) statetest.Open {
	m := etcdtest.Start(t)
	n := 0
	return func(t testing.TB) statetest.Open {
		n++
		c := Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("state/", n)}
		if err := Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return func(t testing.TB) statetest.Server {
			s, err := open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			return statetest.Server{Server: s.Server, Close: s.Close}
		}
	}
}

func TestSuite(t *testing.T)  { statetest.TestServer(t, places(t, Open)) }
func TestShared(t *testing.T) { statetest.TestShared(t, places(t, Open)) }

func TestOpening(t *testing.T) {
	m := etcdtest.Start(t)
	c := Config{Endpoints: []string{m.URL}}
	for name, open := range map[string]func(context.Context, Config) (*Server, error){"Open": Open, "Administer": Administer} {
		if _, err := open(t.Context(), c); !errors.Is(err, ErrEmpty) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), c); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
}

// TestWithoutEtcd judges as long as the copy may be used, and accepts no id.
func TestWithoutEtcd(t *testing.T) {
	m := etcdtest.StartDurable(t)
	lost := make(chan error, 10)
	c := Config{Endpoints: []string{m.URL}, Staleness: 3 * time.Second, Notice: func(err error) { lost <- err }}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	register(t, s)
	m.Kill()
	killed := time.Now()
	if err := s.AcceptID(t.Context(), "device", 1, 2); err == nil || isCode(err) {
		t.Errorf("an id without etcd: %v", err)
	}
	<-lost
	began := time.Now()
	if err := s.AcceptID(t.Context(), "device", 1, 3); err == nil || time.Since(began) > 100*time.Millisecond {
		t.Errorf("an id without etcd took %v: %v", time.Since(began), err)
	}
	judge := func() error {
		_, errEntity := s.Entity(t.Context(), "device")
		_, _, errDates := s.CountSince(t.Context(), "device", "")
		return errors.Join(s.Revoked(t.Context(), "device", ""), errEntity, errDates)
	}
	if err := judge(); err != nil {
		t.Errorf("at once: %v", err)
	}
	for judge() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	if after := time.Since(killed); after > c.Staleness+100*time.Millisecond || !errors.Is(judge(), ErrStale) {
		t.Errorf("after %v: %v", after, judge())
	}
	m.Restart(t)
	<-lost
	if err := errors.Join(judge(), s.AcceptID(t.Context(), "device", 1, 4)); err != nil {
		t.Errorf("etcd is back: %v", err)
	}
	if err := s.AcceptID(t.Context(), "device", 1, 1); !errors.Is(err, msl.ErrMessageReplayed) {
		t.Errorf("a replay: %v", err)
	}
}

func register(t *testing.T, s *Server) {
	t.Helper()
	e := state.EntityRecord{Identity: "device", Scheme: "PSK", PSK: &msl.SealedPSK{Encryption: []byte{1}, MAC: []byte{2}, Wrapping: []byte{3}}}
	if err := errors.Join(s.AddEntity(e), s.AcceptID(t.Context(), "device", 1, 1)); err != nil {
		t.Fatal(err)
	}
}

func isCode(err error) bool {
	var c msl.Code
	return errors.As(err, &c)
}
