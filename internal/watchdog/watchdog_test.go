package watchdog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// TestRun has calls that return at once, a little after their time, and much later.
func TestRun(t *testing.T) {
	own := errors.New("own")
	for name, c := range map[string]struct {
		takes time.Duration
		want  error
		after time.Duration
	}{
		"at once":        {0, own, 0},
		"in time":        {time.Minute - 1, own, time.Minute - 1},
		"a little later": {time.Minute + grace - 1, own, time.Minute + grace - 1},
		"hangs":          {time.Hour, ErrHung, time.Minute + grace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				err := Run(ctx, func() error { time.Sleep(c.takes); return own })
				if took := time.Since(start); err != c.want || took != c.after {
					t.Errorf("%v after %v, want %v after %v", err, took, c.want, c.after)
				}
				time.Sleep(time.Hour) // until what hung has ended
			})
		})
	}
	if !errors.Is(ErrHung, keystore.ErrUnavailable) {
		t.Error("a device that hangs counts as available")
	}
}

// A sleeper is a body whose calls take that long.
type sleeper struct {
	io.Reader
	reads, closes time.Duration
	closed        chan struct{}
}

func (s *sleeper) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	time.Sleep(s.reads)
	return n, err
}

func (s *sleeper) Close() error {
	time.Sleep(s.closes)
	if s.closed != nil {
		close(s.closed)
	}
	return nil
}

// TestBodyHangs reads and closes a body whose calls hang. The caller's buffer stays
// untouched after ErrHung.
func TestBodyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		whole := &watchedBody{watch: ctx, turn: make(chan struct{}, 1), body: &sleeper{Reader: strings.NewReader(strings.Repeat("x", 200_000))}}
		if data, err := io.ReadAll(whole); err != nil || len(data) != 200_000 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		hanging := &watchedBody{watch: ctx, turn: make(chan struct{}, 1), body: &sleeper{Reader: strings.NewReader("late"), reads: time.Hour, closes: time.Hour}}
		p := make([]byte, 10)
		if n, err := hanging.Read(p); n != 0 || err != ErrHung {
			t.Errorf("read %d bytes, %v", n, err)
		}
		time.Sleep(2 * time.Hour)
		if !bytes.Equal(p, make([]byte, 10)) {
			t.Errorf("the buffer was written to later: %q", p)
		}
		if err := hanging.Close(); err != ErrHung {
			t.Errorf("close: %v", err)
		}
		time.Sleep(2 * time.Hour) // until what hung has ended
	})
}

// An exclusive body notes a call during another one.
type exclusive struct {
	takes   time.Duration
	busy    atomic.Bool
	closed  atomic.Bool
	overlap atomic.Bool
}

func (e *exclusive) call() {
	e.overlap.CompareAndSwap(false, e.busy.Swap(true))
	time.Sleep(e.takes)
	e.busy.Store(false)
}

func (e *exclusive) Read([]byte) (int, error) { e.call(); return 0, io.EOF }
func (e *exclusive) Close() error             { e.call(); e.closed.Store(true); return nil }

// TestBodyClosedLate closes a body whose read hangs: it is closed once that has returned,
// and not before.
func TestBodyClosedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		e := &exclusive{takes: time.Hour}
		b := &watchedBody{watch: ctx, turn: make(chan struct{}, 1), body: e}
		if _, err := b.Read(make([]byte, 1)); err != ErrHung {
			t.Errorf("read: %v", err)
		}
		if err := b.Close(); err != ErrHung {
			t.Errorf("close: %v", err)
		}
		time.Sleep(3 * time.Hour)
		if e.overlap.Load() || !e.closed.Load() {
			t.Errorf("closed %v, during a read %v", e.closed.Load(), e.overlap.Load())
		}
	})
}

// A lateServer answers after that time.
type lateServer struct {
	server *msl.Server
	takes  time.Duration
	closed chan struct{}
}

func (l *lateServer) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request, answer bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	err := l.server.Serve(context.WithoutCancel(ctx), "test", &request, &answer, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	})
	time.Sleep(l.takes)
	return &sleeper{Reader: &answer, closed: l.closed}, err
}

// TestDo gets an answer in time, and closes one that comes after it gave up.
func TestDo(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		want  error
	}{"in time": {time.Second, nil}, "late": {time.Hour, ErrHung}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &msl.Server{
					Name: "server", Local: &entityauth.NoneEntity{Identity: "server"},
					Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Issuer: &msl.Issuer{}, State: &msl.MemoryState{},
				}
				defer server.Close()
				late := &lateServer{server, c.takes, make(chan struct{})}
				client := &msl.Client{Local: &entityauth.NoneEntity{Identity: "device"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Transport: late}
				defer client.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				r, err := Do(t.Context(), ctx, client, &msl.Request{Body: msl.BytesBody([]byte("hello"))})
				if err != c.want {
					t.Fatal(err)
				}
				if err == nil {
					data, err := io.ReadAll(r.Body)
					if err := errors.Join(err, r.Body.Close()); err != nil || string(data) != "hello" {
						t.Errorf("%q, %v", data, err)
					}
				}
				<-late.closed // for ever, where nobody closes it
			})
		})
	}
}
