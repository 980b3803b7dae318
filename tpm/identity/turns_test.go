package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestNoneWaits uses an identity while the authority takes its time: also the messages to the
// authority may need it.
func TestNoneWaits(t *testing.T) {
	o := newOffice(t, accepting())
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
	key := saved(t, d).file.state.Keys[0]
	lend := func(f func(transport.TPM, tpm2.NamedHandle) error) error {
		k := saved(t, d)
		return k.do(func(chip transport.TPM) error {
			return k.use(chip, key, func(h tpm2.NamedHandle) error { return f(chip, h) })
		})
	}
	asked := 0
	slow := func(ctx context.Context, request []byte) ([]byte, error) {
		asked++
		done := make(chan error, 1)
		go func() {
			_, status := d.Status()
			_, _, credentials := d.Credentials()
			_, next := d.Next()
			_, quote := d.Quote(make([]byte, 16), []uint{0})
			_, _, certify := d.Certify(lend, make([]byte, 16))
			done <- errors.Join(status, credentials, next, quote, certify, d.Check())
		}()
		select {
		case err := <-done:
			checkError(t, err, nil)
		case <-time.After(time.Minute):
			return nil, errors.New("the other methods wait for the authority")
		}
		turn, cancel := context.WithCancel(ctx)
		cancel()
		checkError(t, d.Enroll(turn, o.exchange, nil), context.Canceled)
		checkError(t, d.Renew(turn, o.exchange, nil), context.Canceled)
		checkError(t, d.Init(turn, InitOptions{}, nil), context.Canceled)
		return o.exchange(ctx, request)
	}
	for _, method := range []func(context.Context, Exchange, func(string)) error{d.Enroll, d.Renew, d.Renew} {
		checkError(t, method(t.Context(), slow, nil), nil)
	}
	if asked != 6 {
		t.Errorf("the authority was asked %d times", asked)
	}
	checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
}

// TestOthersTakeTurns enrolls and renews an identity in several processes at once: they take
// turns, and the authority and the machine agree on the keys afterwards.
func TestOthersTakeTurns(t *testing.T) {
	o := newOffice(t, accepting())
	chip, path := connect(t, tpmtest.Start(t)), newPath(t)
	d := ready(t, chip, path)
	checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
	var all sync.WaitGroup
	for range 3 {
		renewing, enrolling := openDevice(t, chip, path), openDevice(t, chip, path)
		all.Go(func() { checkError(t, renewing.Renew(t.Context(), o.exchange, nil), nil) })
		all.Go(func() { checkError(t, enrolling.Enroll(t.Context(), o.exchange, nil), nil) })
	}
	all.Wait()
	checkError(t, d.Renew(t.Context(), o.exchange, nil), nil)
	checkIdentity(t, d, o.c.Certificate, defaultName(idOf(t, d)))
	turn, cancel := context.WithCancel(t.Context())
	err := d.Enroll(t.Context(), func(ctx context.Context, request []byte) ([]byte, error) {
		if turn.Err() == nil {
			waits := func(string) { cancel() }
			checkError(t, openDevice(t, chip, path).Renew(turn, o.exchange, waits), ErrInUse)
		}
		return o.exchange(ctx, request)
	}, nil)
	checkError(t, err, nil)
}

// TestOneOfManyChanges changes a file several times at once, as processes do that found it in the
// same state: one change is made, and the others are told that it was.
func TestOneOfManyChanges(t *testing.T) {
	path := newPath(t)
	var all sync.WaitGroup
	begin, made := make(chan struct{}), make(chan error, 8)
	for i := range cap(made) {
		f := &file{path: path, state: state{Version: stateVersion}}
		all.Go(func() {
			<-begin
			made <- f.save(func(s *state) { s.Last = &outcome{State: fmt.Sprint("change ", i)} })
		})
	}
	close(begin)
	all.Wait()
	succeeded := 0
	for range cap(made) {
		if err := <-made; err == nil {
			succeeded++
		} else {
			checkError(t, err, ErrInUse)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d changes of the same file succeeded", succeeded)
	}
}

// TestUnreadableMeanwhile has a state file that cannot be read when the answer is to be saved: that
// is said, and not that another process changed it.
func TestUnreadableMeanwhile(t *testing.T) {
	o := newOffice(t, accepting())
	path := newPath(t)
	d := ready(t, connect(t, tpmtest.Start(t)), path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Enroll(t.Context(), func(ctx context.Context, request []byte) ([]byte, error) {
		if err := os.WriteFile(path, whole[:len(whole)-1], 0o600); err != nil {
			t.Error(err)
		}
		return o.exchange(ctx, request)
	}, nil)
	if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
}
