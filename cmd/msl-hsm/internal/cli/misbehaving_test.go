//go:build linux && cgo && !nopkcs11

package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestMisbehaving has devices send numbered messages to a server with two tokens in
// processes of their own, while these are killed, stopped, made to leak or to hang, and
// the tokens removed and swapped. What a device got an answer to was processed once, no
// message was processed twice, devices hear nothing worse than that they may try again, and
// none needs a new session. With MSL_SOAK=1 it runs for ten minutes, or for
// MSL_SOAK_FOR; what each mishap cost is printed.
func TestMisbehaving(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	devices, pause, sample := 4, 50*time.Millisecond, []string{"a process is killed", "a call hangs", "a token is removed"}
	var lasting time.Duration
	if os.Getenv("MSL_SOAK") != "" {
		devices, sample, lasting = 64, slices.Sorted(maps.Keys(mishaps)), soakFor(t)
	}
	b := newTwoTokens(t, devices)
	end := b.send(pause)
	costs := map[string]cost{}
	for turn, began := 0, time.Now(); turn == 0 || len(costs) > 0 && time.Since(began) < lasting; turn++ {
		for _, name := range sample {
			t.Run(name, func(t *testing.T) { costs[name] = b.in(t).suffer(name, turn%len(b.modules)).worst(costs[name]) })
		}
	}
	end()
	b.stop()
	b.ledger.judge(t)
	for name, c := range costs {
		t.Logf("%-36s %s", name, c)
	}
}

// soakFor is how long the long form runs.
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("MSL_SOAK_FOR")
	if text == "" {
		return 10 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("MSL_SOAK_FOR: %v", err)
	}
	return d
}

// mishaps are what can go wrong with one of the tokens, or with both. Each lasts until
// the function that it returns, if any, ends it.
var mishaps = map[string]func(b *twoTokens, i int) (end func()){
	"a process is killed":        func(b *twoTokens, i int) func() { return b.signal(syscall.SIGKILL, i) },
	"both processes are killed":  func(b *twoTokens, _ int) func() { return b.signal(syscall.SIGKILL, 0, 1) },
	"a process is stopped":       func(b *twoTokens, i int) func() { return b.signal(syscall.SIGSTOP, i) },
	"both processes are stopped": func(b *twoTokens, _ int) func() { return b.signal(syscall.SIGSTOP, 0, 1) },
	"a process leaks": func(b *twoTokens, i int) func() {
		return b.inject(hsmtest.Fault{Function: "C_Sign", Leak: 8 << 20, Times: 2 * isolatedMemory >> 23}, i)
	},
	"a process crashes": func(b *twoTokens, i int) func() {
		return b.inject(hsmtest.Fault{Function: "C_Decrypt", Crash: true, Times: 1}, i)
	},
	"a call hangs":   func(b *twoTokens, i int) func() { return b.inject(hsmtest.Fault{Function: "C_Sign", Hang: true}, i) },
	"all calls hang": func(b *twoTokens, i int) func() { return b.inject(hsmtest.Fault{Hang: true}, 0, 1) },
	"a token is slow": func(b *twoTokens, i int) func() {
		return b.inject(hsmtest.Fault{Function: "C_Sign", Delay: 20 * time.Millisecond}, i)
	},
	"a token fails":    func(b *twoTokens, i int) func() { return b.inject(hsmtest.Fault{Code: pkcs11.CKR_DEVICE_ERROR}, i) },
	"both tokens fail": func(b *twoTokens, i int) func() { return b.inject(hsmtest.Fault{Code: pkcs11.CKR_DEVICE_ERROR}, 0, 1) },
	"a token loses its sessions": func(b *twoTokens, i int) func() {
		return b.inject(hsmtest.Fault{Function: "C_Sign", VanishSessions: true, Times: 3}, i)
	},
	"a token loses its objects": func(b *twoTokens, i int) func() {
		return b.inject(hsmtest.Fault{Function: "C_Sign", VanishObjects: true, Times: 3}, i)
	},
	"a token is removed":        func(b *twoTokens, i int) func() { return b.inject(hsmtest.Fault{Removed: true}, i) },
	"both tokens are removed":   func(b *twoTokens, _ int) func() { return b.inject(hsmtest.Fault{Removed: true}, 0, 1) },
	"a directory is moved away": func(b *twoTokens, i int) func() { return b.moveAway(b.tokens[i]) },
	"the slots are swapped": func(b *twoTokens, _ int) func() {
		return b.inject(hsmtest.Fault{Token: b.tokens[0].Label, Replace: b.tokens[1].Label}, 0, 1)
	},
}

// holds is how long a mishap lasts: longer than a call may take.
const holds = callLimit + time.Second

// A cost is what a mishap cost.
type cost struct {
	times          int
	service, token time.Duration // from its end to the first answer, to the last token that is used again
	silence        time.Duration // the longest time without an answer to any device
	refused        int           // messages that got an error
}

func (c cost) String() string {
	return fmt.Sprintf("%3d times: first answer after %5d ms, both tokens used after %5d ms; at most %5d ms without an answer, %4d messages without an answer",
		c.times, c.service.Milliseconds(), c.token.Milliseconds(), c.silence.Milliseconds(), c.refused)
}

// worst adds what it cost before.
func (c cost) worst(before cost) cost {
	return cost{
		times: before.times + 1, service: max(c.service, before.service), token: max(c.token, before.token),
		silence: max(c.silence, before.silence), refused: c.refused + before.refused,
	}
}

// suffer has something happen, waits until all devices and tokens work again, and returns
// what it cost.
func (b *twoTokens) suffer(name string, i int) (c cost) {
	b.Helper()
	b.ledger.restart()
	end := mishaps[name](b, i)
	if end != nil {
		time.Sleep(holds)
		end()
	}
	ended := time.Now()
	await(b.T, name+": an answer", func() bool { return b.ledger.firstAfter(ended) > 0 })
	await(b.T, name+": both tokens", func() bool { return b.usable() == len(b.tokens) })
	c.token = time.Since(ended)
	await(b.T, name+": all devices", func() bool { return b.ledger.servedAfter(ended) == len(b.devices) })
	c.service = b.ledger.firstAfter(ended)
	c.silence, c.refused = b.ledger.sum()
	if c.service > mostSilence {
		b.Errorf("%s: the first answer after its end came after %v", name, c.service)
	}
	return c
}

// mostSilence is how long after its end a mishap may be felt. On a machine with nothing else
// to do it is a fraction of a second.
const mostSilence = 15 * time.Second

// signal sends a signal to the processes of some tokens, and has those that are stopped go
// on at the end.
func (b *twoTokens) signal(s syscall.Signal, which ...int) (end func()) {
	b.Helper()
	var all []*os.Process
	children := b.children()
	for _, i := range which {
		all = append(all, children[i%len(children)])
	}
	tell := func(s syscall.Signal) {
		for _, p := range all {
			if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				b.Error(err)
			}
		}
	}
	tell(s)
	if s == syscall.SIGKILL {
		return nil
	}
	return func() { tell(syscall.SIGCONT) }
}

// children are the processes of the tokens, of which both have to be there.
func (b *twoTokens) children() (all []*os.Process) {
	b.Helper()
	await(b.T, "two processes", func() bool {
		pids, err := childrenOf(b.server.Process.Pid)
		all = nil
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				all = append(all, p)
			}
		}
		return err == nil && len(all) == len(b.tokens)
	})
	return all
}

// inject gives the modules of some tokens a fault until the end.
func (b *twoTokens) inject(f hsmtest.Fault, which ...int) (end func()) {
	for _, i := range which {
		b.modules[i].Inject(f)
	}
	return func() {
		for _, i := range which {
			b.modules[i].Clear()
		}
	}
}

// moveAway takes the directory of a SoftHSM token away until the end.
func (b *twoTokens) moveAway(token *softhsm.Token) (end func()) {
	here, away := filepath.Join(filepath.Dir(token.Config), "tokens"), b.TempDir()
	move := func(from, to string) {
		if err := moveTokens(from, to, token.Label); err != nil {
			b.Error(err)
		}
	}
	move(here, away)
	return func() { move(away, here) }
}
