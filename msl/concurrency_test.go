package msl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A faulty transport delays and loses messages, and hangs, in the fake time of a bubble.
type faulty struct {
	network *network
	chance  func() float64 // of the next fault
}

var errLost = errors.New("lost")

func (f *faulty) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	delay(ctx, 2*time.Second)
	switch fault := f.chance(); {
	case fault < 0.10:
		return nil, errLost // the request
	case fault < 0.15: // nobody answers
		<-ctx.Done()
		return nil, ctx.Err()
	case fault < 0.25:
		if _, err := f.network.RoundTrip(ctx, write); err != nil {
			return nil, err
		}
		delay(ctx, time.Second)
		return nil, errLost // the answer
	}
	answer, err := f.network.RoundTrip(ctx, write)
	delay(ctx, time.Second)
	return answer, err
}

func delay(ctx context.Context, longest time.Duration) {
	select {
	case <-time.After(rand.N(longest)):
	case <-ctx.Done():
	}
}

// An offering exchange counts the offers that are open at the same time.
type offering struct {
	msl.Offerer
	open, most, made *atomic.Int32
}

type countedOffer struct {
	msl.Offer
	done func()
}

func (o offering) Offer(ctx context.Context, from msl.Requester) (msl.Offer, error) {
	offer, err := o.Offerer.Offer(ctx, from)
	if err != nil {
		return nil, err
	}
	o.made.Add(1)
	if n := o.open.Add(1); n > o.most.Load() {
		o.most.Store(n)
	}
	return countedOffer{offer, sync.OnceFunc(func() { o.open.Add(-1) })}, nil
}

func (o countedOffer) Close() error {
	o.done()
	return o.Offer.Close()
}

// TestFaultsUnderConcurrency sends from hundreds of goroutines while messages and
// answers get lost, hang and come late, and master tokens need renewal all the
// time. No goroutine may wait for ever, which the bubble notices, no two renewals may
// be in progress, and every message must get through.
func TestFaultsUnderConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		n.server.Issuer.Time, n.server.Issuer.RenewAfter, n.server.Issuer.Lifetime = time.Now, 20*time.Second, 40*time.Second
		c := n.pskClient("device")
		c.Time, c.Transport = time.Now, &faulty{n, rand.Float64}
		counts := offering{c.KeyExchanges[0], new(atomic.Int32), new(atomic.Int32), new(atomic.Int32)}
		c.KeyExchanges[0] = counts
		var lost atomic.Int32
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				for j := range 3 {
					demands := *secret(fmt.Sprint(i, j))
					demands.NonReplayable = i%4 == 0 && j%2 == 1 // one slow one holds up the others
					if i%3 == 0 {
						demands.User = ""
					}
					if !insist(t, c, &demands, 30) {
						lost.Add(1)
					}
					time.Sleep(rand.N(30 * time.Second))
				}
			})
		}
		all.Wait()
		if lost.Load() > 0 {
			t.Errorf("%d of 600 messages never got through", lost.Load())
		}
		if counts.most.Load() > 1 {
			t.Errorf("%d renewals were outstanding at once", counts.most.Load())
		}
		if counts.open.Load() != 0 {
			t.Errorf("%d offers were never closed", counts.open.Load())
		}
		if counts.made.Load() < 3 {
			t.Errorf("only %d key exchanges: the test renewed nothing", counts.made.Load())
		}
	})
}

// insist sends a message until it succeeds, with a bound on the time of each try.
func insist(t *testing.T, c *msl.Client, req *msl.Request, tries int) bool {
	body, err := req.Body()
	if err != nil {
		t.Error(err)
		return false
	}
	want, _ := io.ReadAll(body)
	for range tries {
		got, err := try(c, req)
		if err == nil {
			if got != string(want) {
				t.Errorf("answer %q to %q", got, want)
			}
			return true
		}
		if !mayPass(err) {
			t.Error(err)
			return false
		}
	}
	return false
}

// mayPass reports whether an error is one of the faults, or is caused by one: a server
// that stopped with its caller.
func mayPass(err error) bool {
	for _, fault := range []error{errLost, context.DeadlineExceeded, msl.ErrInternalException} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

func try(c *msl.Client, req *msl.Request) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	r, err := c.Do(ctx, req)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r.Body)
	return string(data), errors.Join(err, r.Body.Close())
}

// TestWaitersWake has the holder of the renewal lock hang. A waiter gives up when its own
// time is up, and takes the lock when the holder's time is up.
func TestWaitersWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		n.server.Issuer.Time = time.Now
		c := n.rsaClient("device")
		c.Time = time.Now
		var first sync.Once
		c.Transport = transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
			mine := false
			first.Do(func() { mine = true })
			if mine {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return n.RoundTrip(ctx, write)
		})
		start := time.Now()
		results := make(chan string, 3)
		for name, patience := range map[string]time.Duration{"holder": 10 * time.Second, "impatient": 5 * time.Second, "patient": time.Minute} {
			go func() {
				if name != "holder" {
					time.Sleep(time.Second)
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_, err := c.Do(ctx, secret("hello"))
				results <- fmt.Sprintf("%s after %v: %v", name, time.Since(start), err == nil)
			}()
		}
		for _, want := range []string{"impatient after 6s: false", "holder after 10s: false", "patient after 10s: true"} {
			if got := <-results; !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// TestCloseUnderWay closes the client while messages are under way: they end, and
// no key stays behind.
func TestCloseUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		n.server.Issuer.Time = time.Now
		c := n.pskClient("device")
		c.Time, c.Transport = time.Now, &faulty{n, func() float64 { return 1 }}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				time.Sleep(rand.N(3 * time.Second))
				try(c, secret("hello"))
			})
		}
		time.Sleep(2 * time.Second)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}
