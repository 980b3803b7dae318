//go:build !noetcd

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestChaos has devices send while what happens to machines happens to servers and to the
// members of etcd. Each message that was answered was taken by the service once, none is
// accepted again, no revoked device is let in for longer than the staleness, and devices are
// told nothing worse than to try again.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	if os.Getenv("MSL_SOAK") == "" {
		chaosOnce(t)
		return
	}
	duration := 10 * time.Minute
	if text := os.Getenv("MSL_SOAK_CHAOS"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	chaosFor(t, duration)
}

// chaosOnce does a few things once. The rotation is the first, since later it would wait
// until the server that was killed counts as gone.
func chaosOnce(t *testing.T) {
	s := newChaosSite(t, "msl-hsm", make([]time.Duration, siteServers), deviceNames(10))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	stop := s.send(ctx, 400*time.Millisecond)
	s.further(10)
	s.mustRun("key", "rotate")
	s.further(10)
	s.servers[0].kill()
	s.further(10)
	s.servers[0].start()
	s.servers[1].signal(syscall.SIGSTOP)
	if !s.revoke("device-0") {
		t.Error("it was not revoked")
	}
	rest(ctx, siteStaleness+500*time.Millisecond)
	s.servers[1].signal(syscall.SIGCONT)
	s.further(10)
	await(t, "another leader", s.moveLeader)
	s.servers[2].etcd[0].Stall()
	s.further(10)
	s.servers[2].etcd[0].Mend()
	s.further(10)
	stop()
	s.finish()
}

func deviceNames(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint("device-", i))
	}
	return all
}

// chaosFor does everything again and again, by servers whose clocks are a minute apart.
func chaosFor(t *testing.T, duration time.Duration) {
	clocks := []time.Duration{-30 * time.Second, 0, 30 * time.Second}
	s := newChaosSite(t, shiftable(t), clocks, deviceNames(200))
	s.room = 34000 // at three servers: 10^5
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	stop := s.send(context.WithoutCancel(ctx), 400*time.Millisecond)
	var wait sync.WaitGroup
	for _, f := range []func(context.Context){s.disturbServers, s.disturbMembers, s.revokeAll, s.rotateAll, s.replaySome} {
		wait.Go(func() { f(ctx) })
	}
	wait.Wait()
	s.further(len(s.devices))
	stop()
	s.finish()
}

// send has all devices send, until stop.
func (s *chaosSite) send(ctx context.Context, pace time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for _, d := range s.devices {
		wait.Go(func() { d.run(ctx, pace) })
	}
	end := func() { cancel(); wait.Wait() }
	s.t.Cleanup(end)
	return end
}

// further returns when n more messages were answered.
func (s *chaosSite) further(n int) {
	s.t.Helper()
	before, _ := s.ledger.state()
	for late := time.After(90 * time.Second); ; {
		got, changed := s.ledger.state()
		if got >= before+n {
			return
		}
		select {
		case <-changed:
		case <-late:
			s.t.Fatalf("only %d of %d messages were answered; %s", got-before, n, s.servers[0].log())
		}
	}
}

// revoke revokes a device, and reports whether that is sure.
func (s *chaosSite) revoke(name string) bool {
	s.ledger.revoke(name, time.Time{})
	if _, err := s.run("entity", "revoke", name); err != nil {
		return false
	}
	s.ledger.revoke(name, time.Now())
	return true
}

// moveLeader makes another member of etcd the leader, and reports whether it did.
func (s *chaosSite) moveLeader() (moved bool) {
	type status struct {
		Endpoint string
		Status   struct {
			Header struct {
				Member uint64 `json:"member_id"`
			} `json:"header"`
			Leader uint64 `json:"leader"`
		}
	}
	var all []status
	out, _ := s.etcdctl(strings.Join(etcdtest.URLs(s.members), ","), "endpoint", "status", "--write-out", "json")
	if json.Unmarshal(out, &all) != nil {
		return false
	}
	for i, m := range all {
		if m.Status.Leader == m.Status.Header.Member {
			next := all[(i+1)%len(all)].Status.Header.Member
			_, err := s.etcdctl(m.Endpoint, "move-leader", strconv.FormatUint(next, 16))
			return err == nil
		}
	}
	return false
}

func (s *chaosSite) etcdctl(endpoints string, args ...string) ([]byte, error) {
	c := exec.Command("etcdctl", append([]string{"--endpoints", endpoints}, args...)...)
	c.Env = append(os.Environ(), "ETCDCTL_API=3")
	return c.Output()
}

// finish sends every kept message to every server again, and checks what happened.
func (s *chaosSite) finish() {
	s.t.Helper()
	s.mu.Lock()
	recorded := s.recorded
	s.mu.Unlock()
	next := make(chan int)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for i := range next {
				s.postAll(recorded[i])
			}
		})
	}
	for i := range recorded {
		next <- i
	}
	close(next)
	wait.Wait()
	s.work.Wait()
	s.ledger.check(s.t)
	for _, v := range s.servers {
		if !v.running() {
			s.t.Errorf("%s ended: %s", v.name, v.log())
		}
	}
	got, _ := s.ledger.state()
	s.t.Logf("%d messages answered, %d failed for a while; copies sent, by what they got: %v", got, s.failed.Load(), s.refused)
}

// postAll sends a message to each server until that refuses it for good.
func (s *chaosSite) postAll(text []byte) {
	for _, v := range s.servers {
		for end := time.Now().Add(time.Minute); ; {
			if code := s.replay(v, text); code != 0 && code != msl.TransientFailure {
				break
			}
			if time.Now().After(end) {
				s.t.Errorf("%s does not refuse a copy", v.name)
				break
			}
		}
	}
}

// disturbServers kills and pauses servers, and cuts them off.
func (s *chaosSite) disturbServers(ctx context.Context) {
	for ctx.Err() == nil {
		v := s.servers[rand.IntN(len(s.servers))]
		l := v.etcd[rand.IntN(len(v.etcd))]
		switch rand.IntN(6) {
		case 0, 1:
			v.kill()
			rest(ctx, time.Duration(rand.Int64N(int64(2*time.Second))))
			v.start()
		case 2, 3:
			v.signal(syscall.SIGSTOP)
			rest(ctx, time.Duration(rand.Int64N(int64(3*siteStaleness))))
			v.signal(syscall.SIGCONT)
		case 4:
			l.Stall()
			rest(ctx, time.Duration(rand.Int64N(int64(3*siteStaleness))))
			l.Mend()
		case 5:
			for _, l := range v.etcd {
				l.Sever()
			}
			rest(ctx, time.Duration(rand.Int64N(int64(3*siteStaleness))))
			for _, l := range v.etcd {
				l.Mend()
			}
		}
		rest(ctx, time.Second)
	}
}

// disturbMembers does the same to the members of etcd, and moves their leader.
func (s *chaosSite) disturbMembers(ctx context.Context) {
	for ctx.Err() == nil {
		i := rand.IntN(len(s.members))
		m, l := s.members[i], s.peers[i]
		switch rand.IntN(6) {
		case 0:
			m.Kill()
			rest(ctx, time.Second)
			m.Restart(s.t)
		case 1:
			m.Stop()
			rest(ctx, time.Duration(rand.Int64N(int64(5*time.Second))))
			m.Continue()
		case 2:
			l.Sever()
			rest(ctx, time.Duration(rand.Int64N(int64(5*time.Second))))
			l.Mend()
		case 3:
			l.Stall()
			rest(ctx, time.Duration(rand.Int64N(int64(5*time.Second))))
			l.Mend()
		default:
			s.moveLeader()
		}
		rest(ctx, 2*time.Second)
	}
}

// revokeAll revokes one device after another, but leaves most of them.
func (s *chaosSite) revokeAll(ctx context.Context) {
	for _, d := range s.devices[:len(s.devices)/2] {
		rest(ctx, 5*time.Second)
		if ctx.Err() != nil {
			return
		}
		s.revoke(d.name)
	}
}

// rotateAll rotates to new keys, again and again. A rotation that fails is continued.
func (s *chaosSite) rotateAll(ctx context.Context) {
	for ctx.Err() == nil {
		rest(ctx, 20*time.Second)
		if out, err := s.run("key", "rotate"); err != nil {
			s.t.Logf("key rotate: %v: %s", err, out)
		}
	}
}

// replaySome sends messages again that were answered.
func (s *chaosSite) replaySome(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		var text []byte
		if len(s.recorded) > 0 {
			text = s.recorded[rand.IntN(len(s.recorded))]
		}
		s.mu.Unlock()
		if text != nil {
			s.replay(s.servers[rand.IntN(len(s.servers))], text)
		}
		rest(ctx, 10*time.Millisecond)
	}
}
