package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A watchedState counts the verdicts on non-replayable ids whose senders wait.
type watchedState struct {
	*msl.MemoryState
	mu                 sync.Mutex
	accepted, late     int
	lost, lostAttacked int
}

func (w *watchedState) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	err := w.MemoryState.AcceptID(ctx, identity, serial, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.accepted++
	case errors.Is(err, msl.ErrMessageReplayed):
		w.late++
	case ctx.Err() == nil:
		w.lost++
	default:
		w.lostAttacked++ // nobody reads the answer
	}
	return err
}

// A slowNetwork delivers each message after a while, also one that was given up,
// and its answer after another.
type slowNetwork struct {
	*network
	mu           sync.Mutex
	there, back  func() time.Duration
	underWay     sync.WaitGroup
	keyExchanges int
}

func (n *slowNetwork) draw(f func() time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f()
}

func (n *slowNetwork) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	there, back := n.draw(n.there), n.draw(n.back)
	type outcome struct {
		io.ReadCloser
		error
	}
	done := make(chan outcome, 1)
	n.underWay.Go(func() {
		time.Sleep(there)
		answer, err := n.network.RoundTrip(ctx, func(w io.Writer) error {
			_, err := w.Write(request.Bytes())
			return err
		})
		time.Sleep(back)
		done <- outcome{answer, err}
	})
	select {
	case o := <-done:
		return o.ReadCloser, o.error
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newSlowNetwork makes a client that has a session.
func newSlowNetwork(t *testing.T) (*slowNetwork, *watchedState, *msl.Client) {
	n := &slowNetwork{network: softNetwork(t)}
	state := &watchedState{MemoryState: &msl.MemoryState{}}
	n.server.State = state
	c := n.pskClient("device")
	n.there, n.back = func() time.Duration { return 0 }, func() time.Duration { return 0 }
	c.Transport = n
	mustSend(t, c, secret("get tokens"), 2)
	return n, state, c
}

func numbered() *msl.Request {
	return &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true, Body: msl.BytesBody([]byte("x"))}
}

func (n *slowNetwork) do(t *testing.T, ctx context.Context, c *msl.Client) error {
	r, err := c.Do(ctx, numbered())
	if err != nil {
		return err
	}
	n.mu.Lock()
	if r.KeyExchange != "" || r.Messages > 4 {
		n.keyExchanges++
	}
	n.mu.Unlock()
	_, err = io.Copy(io.Discard, r.Body)
	return errors.Join(err, r.Body.Close())
}

// TestNumbersSlow holds one message in 40 for a second and a half: those of eight
// goroutines continue, and the session lasts.
func TestNumbersSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, state, c := newSlowNetwork(t)
		sent := 0
		n.there = func() time.Duration {
			if sent++; sent%40 == 0 {
				return 1500 * time.Millisecond
			}
			return 2 * time.Millisecond
		}
		session := c.Held().MasterToken.SerialNumber
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 30 {
					if err := n.do(t, context.Background(), c); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if state.lost > 0 || state.accepted != 240 || c.Held().MasterToken.SerialNumber != session {
			t.Errorf("%d ids accepted, %d asked for again, %d taken for attacks", state.accepted, state.late, state.lost)
		}
	})
}

// TestNumbersProperty delays messages and answers at random, and gives some up
// while they are under way: no other call fails, and no id of a message whose answer is
// awaited comes so late that it looks like an attack.
func TestNumbersProperty(t *testing.T) {
	seeds := uint64(3)
	if soak() {
		seeds = 200
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			n, state, c := newSlowNetwork(t)
			delay := func() time.Duration {
				if random.IntN(10) == 0 {
					return time.Duration(random.IntN(3000)) * time.Millisecond
				}
				return time.Duration(random.IntN(20)) * time.Millisecond
			}
			n.there, n.back = delay, delay
			patience := func() time.Duration {
				if random.IntN(4) == 0 {
					return time.Duration(random.IntN(500)) * time.Millisecond
				}
				return time.Hour
			}
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					for range 15 {
						ctx, cancel := context.WithTimeout(context.Background(), n.draw(patience))
						if err := n.do(t, ctx, c); err != nil && ctx.Err() == nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						cancel()
					}
				})
			}
			all.Wait()
			n.underWay.Wait()
			if state.lost > 0 {
				t.Errorf("seed %d: %d ids were taken for attacks", seed, state.lost)
			}
		})
	}
}

// TestNumbersLost gives up message after message. The ids that may still arrive
// stop the sixth one, which asks for another session; an answer in between lets it
// go on without.
func TestNumbersLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, state, c := newSlowNetwork(t)
		session := c.Held().MasterToken.SerialNumber
		lose := func(count int) {
			n.there = func() time.Duration { return time.Hour }
			for range count {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				if err := n.do(t, ctx, c); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				cancel()
			}
			n.there = func() time.Duration { return 0 }
		}
		for range 5 {
			lose(4)
			if err := n.do(t, context.Background(), c); err != nil {
				t.Error(err)
			}
		}
		if c.Held().MasterToken.SerialNumber != session {
			t.Error("the session was replaced")
		}
		lose(5)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := n.do(t, context.Background(), c); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if c.Held().MasterToken.SerialNumber == session {
			t.Error("an id was used whose message could come too late")
		}
		n.underWay.Wait()
		if state.lost > 0 {
			t.Errorf("%d ids were taken for attacks", state.lost)
		}
	})
}

// TestNumbersSend sends messages that nobody answers, more than the window holds.
func TestNumbersSend(t *testing.T) {
	n, state, c := newSlowNetwork(t)
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrNoReply }
	session := c.Held().MasterToken.SerialNumber
	for range 20 {
		if err := c.Send(context.Background(), numbered()); err != nil {
			t.Fatal(err)
		}
	}
	if state.accepted != 20 || c.Held().MasterToken.SerialNumber != session {
		t.Errorf("%d accepted", state.accepted)
	}
}

// TestNumbersSpent has another process use up the ids between one that was lost and the next one:
// nothing is sent under that one, and the handshake for another session is not counted twice.
func TestNumbersSpent(t *testing.T) {
	n := softNetwork(t)
	c, state := n.pskClient("device"), &recordState{}
	c.State = state
	mustSend(t, c, numbered(), 4)
	serial := c.Held().MasterToken.SerialNumber
	ctx, cancel := context.WithCancel(t.Context())
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error {
		cancel()
		return context.Canceled
	}
	if _, err := c.Do(ctx, numbered()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	n.handler, state.ids[serial] = echo, state.ids[serial]+10
	mustSend(t, c, numbered(), 4)
}
