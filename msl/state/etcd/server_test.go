//go:build !noetcd

package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/statetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// places returns places in one cluster.
func places(t *testing.T, open func(context.Context, Config) (*Server, error)) func(t testing.TB) statetest.Open {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	n := 0
	return func(t testing.TB) statetest.Open {
		n++
		c := Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("state/", n), Key: key}
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

// TestHalfMade opens a state whose making was interrupted before its root: there is none.
func TestHalfMade(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	db, err := c.place().Open(t.Context(), etcdkv.CreateNew)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	for name, open := range map[string]func(context.Context, Config) (*Server, error){"Open": Open, "Administer": Administer} {
		if _, err := open(t.Context(), c); !errors.Is(err, ErrEmpty) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestWithoutEtcd judges as long as the copy may be used, and accepts no id.
func TestWithoutEtcd(t *testing.T) {
	m := etcdtest.StartDurable(t)
	lost := make(chan error, 10)
	c := Config{Endpoints: []string{m.URL}, Staleness: 5 * time.Second, Notice: func(err error) { lost <- err }}
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
	shortest := time.Hour
	for range 20 { // others may keep the processors
		began := time.Now()
		if err := s.AcceptID(t.Context(), "device", 1, 3); err == nil {
			t.Error("an id without etcd")
		}
		shortest = min(shortest, time.Since(began))
	}
	if shortest > 100*time.Millisecond {
		t.Errorf("an id without etcd took %v", shortest)
	}
	judge := func() error {
		_, errEntity := s.Entity(t.Context(), "device")
		_, _, errDates := s.CountSince(t.Context(), "device", "")
		return errors.Join(s.Revoked(t.Context(), "device", ""), errEntity, errDates)
	}
	if err := judge(); err != nil {
		t.Errorf("at once: %v", err)
	}
	began := time.Now()
	for judge() == nil {
		if after := began.Sub(killed); after > c.Staleness {
			t.Fatalf("judged after %v", after)
		}
		time.Sleep(5 * time.Millisecond)
		began = time.Now()
	}
	if err := judge(); !errors.Is(err, ErrStale) {
		t.Error(err)
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

// keyed returns a key of a store in memory.
func keyed(t testing.TB) (*soft.Store, Key) {
	t.Helper()
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	if _, err := store.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	k, err := KeyOf(store, "mac")
	if err != nil {
		t.Fatal(err)
	}
	return store, k
}

// TestForged changes keys of etcd behind the servers' backs: none of them continues with it, and none
// begins with it.
func TestForged(t *testing.T) {
	for name, forge := range map[string]func(t *testing.T, c *clientv3.Client){
		"a revocation lifted": func(t *testing.T, c *clientv3.Client) {
			if answer, err := c.Delete(t.Context(), "state/entity marks/bad"); err != nil || answer.Deleted != 1 {
				t.Fatal(answer, err)
			}
		},
		"an entity slipped in": func(t *testing.T, c *clientv3.Client) {
			answer, err := c.Get(t.Context(), "state/entities/device")
			if err != nil {
				t.Fatal(err)
			}
			value, _ := kv.Unframe("entities", []byte("device"), answer.Kvs[0].Value)
			if _, err := c.Put(t.Context(), "state/entities/spy", string(kv.Frame("entities", []byte("spy"), value))); err != nil {
				t.Fatal(err)
			}
		},
		"all as it was": func(t *testing.T, c *clientv3.Client) {
			now, err := c.Get(t.Context(), "state/format/root")
			if err != nil {
				t.Fatal(err)
			}
			first, err := c.Get(t.Context(), "state/format/root", clientv3.WithRev(now.Kvs[0].ModRevision-1))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Txn(t.Context()).Then(clientv3.OpDelete("state/entity marks/bad"),
				clientv3.OpPut("state/format/root", string(first.Kvs[0].Value))).Commit()
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := etcdtest.Start(t)
			_, key := keyed(t)
			c := Config{Endpoints: []string{m.URL}, Prefix: "state", Key: key}
			if err := Create(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			register(t, s)
			if err := errors.Join(s.RevokeEntity("bad"), s.Verify(t.Context())); err != nil {
				t.Fatal(err)
			}
			forge(t, client(t, m.URL))
			for end := time.Now().Add(5 * time.Second); !errors.Is(s.Revoked(t.Context(), "bad", ""), ErrForged); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("not noticed")
				}
			}
			if name == "all as it was" { // which only those know who saw more
				return
			}
			if err := s.Verify(t.Context()); !errors.Is(err, ErrForged) {
				t.Errorf("verified: %v", err)
			}
			if late, err := Open(t.Context(), c); !errors.Is(err, ErrForged) {
				t.Errorf("opened afterwards: %v", err)
				late.Close()
			}
		})
	}
}

func client(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A remembering store looks its keys up once, as that of a PKCS #11 token.
type remembering struct {
	keystore.Store
	mu    sync.Mutex
	rings map[string][]keystore.Version
}

func (r *remembering) Lookup(label string) (ring []keystore.Version, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rings[label] == nil {
		if ring, err = r.Store.Lookup(label); err != nil {
			return nil, err
		}
		r.rings = map[string][]keystore.Version{label: ring}
	}
	return r.rings[label], nil
}

func (r *remembering) Refresh(...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rings = nil
	return nil
}

func (r *remembering) SealWith(string, uint32) error { return errors.ErrUnsupported }

// TestKeyRotates makes a version of the key that a running server does not know yet, and
// destroys the old one.
func TestKeyRotates(t *testing.T) {
	m := etcdtest.Start(t)
	store, _ := keyed(t)
	key, err := KeyOf(&remembering{Store: store}, "mac")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Endpoints: []string{m.URL}, Key: key}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	old, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := store.Create("mac", keystore.HMACSHA256); err != nil {
		t.Fatal(err)
	}
	if c.Key, err = KeyOf(store, "mac"); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	register(t, s)
	if err := store.Destroy("mac", 1); err != nil {
		t.Fatal(err)
	}
	late, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := old.Entity(t.Context(), "device")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestUnfinished makes the state of which only the beginning was made, and needs the key.
func TestUnfinished(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.Key = key
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), c); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	c.Key = nil
	if _, err := Open(t.Context(), c); err == nil {
		t.Error("opened without the key")
	}
	if _, err := Administer(t.Context(), c); err == nil {
		t.Error("opened without the key")
	}
}

func BenchmarkIDs(b *testing.B)    { benchmarkIDs(b, 1) }
func BenchmarkIDsOf3(b *testing.B) { benchmarkIDs(b, 3) }

// benchmarkIDs is with members that sync their files, as bolt does.
func benchmarkIDs(b *testing.B, members int) {
	c := Config{Endpoints: etcdtest.URLs(etcdtest.StartCluster(b, members))}
	if err := Create(b.Context(), c); err != nil {
		b.Fatal(err)
	}
	statetest.BenchmarkIDs(b, func(t testing.TB) statetest.Server {
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return statetest.Server{Server: s.Server, Close: s.Close}
	})
}
