//go:build !noetcd

package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A network is servers that share a state, each of which may be gone for a moment.
type network struct {
	t       *testing.T
	config  Config
	members []*etcdtest.Member

	mu      sync.Mutex
	servers []*Server

	accepted, refused, failed, late atomic.Int64
}

func (n *network) one() *Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[rand.IntN(len(n.servers))]
}

func (n *network) all() []*Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Server(nil), n.servers...)
}

// TestChaos kills, stops and moves everything while ids are accepted and names revoked: of
// those who send one id at once at most one is accepted, what was accepted is a replay for
// ever, and who was revoked is let in no longer than the staleness.
func TestChaos(t *testing.T) {
	duration, again := 8*time.Second, int64(30)
	if os.Getenv("MSL_SOAK") != "" {
		duration, again = 10*time.Minute, 3000 // at three servers, of twelve devices: 10^5
	}
	members := etcdtest.StartCluster(t, 3)
	_, key := keyed(t)
	n := &network{t: t, members: members, config: Config{Endpoints: etcdtest.URLs(members), Staleness: 2 * time.Second, Key: key}}
	if err := Create(t.Context(), n.config); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.servers = append(n.servers, n.open())
	}
	defer func() {
		for _, s := range n.servers {
			s.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), duration+2*time.Minute)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		rest(ctx, duration)
		for n.accepted.Load() < 100 && ctx.Err() == nil { // a busy machine takes longer
			rest(ctx, 100*time.Millisecond)
		}
		cancel()
	})
	largest := make([]int64, 12)
	for i := range largest {
		wait.Go(func() { largest[i] = n.send(ctx, fmt.Sprint("device ", i)) })
	}
	wait.Go(func() { n.revoke(ctx) })
	wait.Go(func() { n.disturb(ctx) })
	wait.Wait()
	n.replay(largest, again)
	t.Logf("%d ids accepted, %d replays refused, %d failed for a while, %d of senders revoked before",
		n.accepted.Load(), n.refused.Load(), n.failed.Load(), n.late.Load())
	if n.accepted.Load() < 100 {
		t.Error("hardly anything was accepted")
	}
}

// open opens a server as soon as etcd answers.
func (n *network) open() *Server {
	for end := time.Now().Add(time.Minute); ; {
		s, err := Open(context.Background(), n.config)
		if err == nil {
			return s
		}
		if time.Now().After(end) {
			n.t.Fatal(err)
		}
	}
}

// send sends ids, each to two servers at once and then again, until ctx ends, and returns
// the largest that was accepted.
func (n *network) send(ctx context.Context, identity string) (largest int64) {
	for id := int64(1); ctx.Err() == nil; id++ {
		var wait sync.WaitGroup
		var accepted atomic.Int64
		for range 2 {
			wait.Go(func() { n.sendOne(identity, id, &accepted) })
		}
		wait.Wait()
		n.sendOne(identity, id, &accepted)
		if accepted.Load() > 1 {
			n.t.Errorf("id %d of %s was accepted %d times", id, identity, accepted.Load())
		}
		if accepted.Load() > 0 {
			largest = id
		}
	}
	return largest
}

func (n *network) sendOne(identity string, id int64, accepted *atomic.Int64) {
	switch err := n.one().AcceptID(context.Background(), identity, 1, id); {
	case err == nil:
		accepted.Add(1)
		n.accepted.Add(1)
	case errors.Is(err, msl.ErrMessageReplayed):
		n.refused.Add(1)
	case isCode(err):
		n.t.Errorf("id %d of %s: %v", id, identity, err)
	default:
		n.failed.Add(1)
		time.Sleep(5 * time.Millisecond) // as a device, which tries again later
	}
}

// revoke revokes one name after another, and asks all servers until they know.
func (n *network) revoke(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprint("bad ", i)
		if n.one().RevokeEntity(name) != nil {
			continue
		}
		acknowledged := time.Now()
		for _, s := range n.all() {
			asked := time.Now() // which is what counts: the answer may take its time
			for s.Revoked(context.Background(), name, "") == nil {
				n.late.Add(1)
				if after := asked.Sub(acknowledged); after > n.config.Staleness+100*time.Millisecond {
					n.t.Errorf("%s is let in %v after the revocation", name, after)
					break
				}
				time.Sleep(time.Millisecond)
				asked = time.Now()
			}
		}
	}
}

// disturb does one thing after another that happens to machines.
func (n *network) disturb(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		m := n.members[rand.IntN(len(n.members))]
		switch i % 4 {
		case 0:
			m.Kill()
			rest(ctx, time.Second)
			m.Restart(n.t)
		case 1:
			m.Stop()
			rest(ctx, 1500*time.Millisecond)
			m.Continue()
		case 2:
			n.replace()
		case 3: // no majority
			for _, m := range n.members[:2] {
				m.Stop()
			}
			rest(ctx, n.config.Staleness)
			for _, m := range n.members[:2] {
				m.Continue()
			}
		}
		rest(ctx, 300*time.Millisecond)
	}
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// replace ends a server and begins another in its place.
func (n *network) replace() {
	i := rand.IntN(len(n.servers))
	n.mu.Lock()
	old := n.servers[i]
	n.mu.Unlock()
	old.Close()
	s := n.open()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[i] = s
}

// replay sends the last ids again to every server, once etcd is well.
func (n *network) replay(largest []int64, again int64) {
	for _, s := range n.all() {
		for i, last := range largest {
			for id := max(1, last-again); id <= last; id++ {
				err := s.AcceptID(context.Background(), fmt.Sprint("device ", i), 1, id)
				for err != nil && !isCode(err) {
					err = s.AcceptID(context.Background(), fmt.Sprint("device ", i), 1, id)
				}
				if err == nil {
					n.t.Errorf("id %d of device %d was accepted again", id, i)
				}
				n.refused.Add(1)
			}
		}
	}
}
