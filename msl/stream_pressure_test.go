package msl_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// inFlight is how much may be in transit to a reader that does not read: the beginning
// that the client holds back for a short message, and some chunks.
const inFlight = 512 << 10

// pressureRounds is how many MiB are read one by one.
func pressureRounds() int64 {
	if raceDetector {
		return 2
	}
	return 5
}

// inBubbles runs a test with each carrier in fake time, where [synctest.Wait]
// tells that nothing moves any more. What is left running at the end fails it.
func inBubbles(t *testing.T, test func(*testing.T, *network, *msl.Client)) {
	for name, carry := range bubbled {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := softNetwork(t)
				c := plain(n, n.pskClient("device"))
				carry(t, n, c)
				mustSend(t, c, secret("get tokens"), 2)
				test(t, n, c)
			})
		})
	}
}

// TestStreamPressureAnswer reads an endless answer now and then: the server gets no
// further than the reader, and stops when the answer is closed.
func TestStreamPressureAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		c := plain(n, n.pskClient("device"))
		overPipedHTTP(t, n, c)
		mustSend(t, c, secret("get tokens"), 2)
		var written int64
		var stopped error
		n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			for p := make([]byte, 1000); stopped == nil; {
				var n int
				n, stopped = w.Write(p)
				written += int64(n)
			}
			return stopped
		}
		r, err := c.Do(context.Background(), secret("x"))
		if err != nil {
			t.Fatal(err)
		}
		var read int64
		for range pressureRounds() {
			synctest.Wait()
			if written < read || written > read+inFlight {
				t.Fatalf("%d bytes were read and %d written", read, written)
			}
			n, err := io.CopyN(io.Discard, r.Body, 1<<20)
			if read += n; err != nil {
				t.Fatal(err)
			}
		}
		r.Body.Close()
		synctest.Wait()
		if stopped == nil {
			t.Error("the server still writes")
		}
	})
}

// TestStreamPressureRequest reads an endless request now and then: no more of the
// client's body is read than the server reads.
func TestStreamPressureRequest(t *testing.T) {
	inBubbles(t, func(t *testing.T, n *network, c *msl.Client) {
		read, answer := make(chan int64), make(chan struct{})
		n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			for size := range read {
				if _, err := io.CopyN(io.Discard, m.Body, size); err != nil {
					return err
				}
			}
			<-answer
			return nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		body := newEndless()
		done := make(chan error)
		go func() {
			_, err := c.Do(ctx, &msl.Request{Encrypted: true, Body: body.body})
			done <- err
		}()
		for i := range pressureRounds() {
			synctest.Wait()
			if had := i << 20; body.given < had || body.given > had+inFlight {
				t.Fatalf("%d bytes were read and %d given", had, body.given)
			}
			read <- 1 << 20
		}
		close(read)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		<-body.closed
		close(answer)
	})
}

// TestStreamCancel ends the context of a request at each of its stages. Do or the
// reader of the answer returns at once, the server's handler learns of it, and
// nothing is left running.
func TestStreamCancel(t *testing.T) {
	silent := func() (io.ReadCloser, error) { return silentBody{make(chan struct{})}, nil }
	endless := func() (io.ReadCloser, error) { return newEndless(), nil }
	reads := func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.ReadAll(m.Body)
		return err
	}
	writes := func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, newEndless())
		return err
	}
	begins := func(then msl.Handler) msl.Handler {
		return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Write([]byte("begun"))
			return errors.Join(w.Flush(), then(ctx, w, m))
		}
	}
	for stage, test := range map[string]struct {
		body   func() (io.ReadCloser, error)
		handle msl.Handler
	}{
		"no answer, both wait for the body":                {silent, reads},
		"begun answer, both wait for the body":             {silent, begins(reads)},
		"begun answer, the server writes, the body waits":  {silent, writes},
		"begun answer, the server writes, the body is due": {endless, writes},
		"begun answer, no body, the server writes":         {nil, writes},
	} {
		t.Run(stage, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, n *network, c *msl.Client) {
				var ended error
				n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
					ended = test.handle(ctx, w, m)
					return ended
				}
				ctx, cancel := context.WithCancel(context.Background())
				began, result := time.Now(), make(chan error)
				go func() {
					r, err := c.Do(ctx, &msl.Request{Encrypted: true, Interactive: true, Body: test.body})
					if err == nil {
						_, err = io.ReadFull(r.Body, make([]byte, 5))
						<-ctx.Done()
						if err == nil {
							_, err = io.Copy(io.Discard, r.Body)
						}
						r.Body.Close()
					}
					result <- err
				}()
				synctest.Wait()
				cancel()
				if err := <-result; !errors.Is(err, context.Canceled) {
					t.Errorf("client: %v", err)
				}
				synctest.Wait()
				if ended == nil {
					t.Error("the handler does not know that it is over")
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestStreamServerCancel ends the context of a server on a connection that lasts,
// between two messages and in the middle of one.
func TestStreamServerCancel(t *testing.T) {
	for _, middle := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := softNetwork(t)
			c := n.pskClient("device")
			a, b := pipe(t)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- n.server.ServeStream(ctx, "test", b, echo) }()
			c.Transport = &msl.StreamTransport{RW: a}
			mustSend(t, c, secret("get tokens"), 2)
			failed := make(chan error, 1)
			if middle {
				go func() {
					_, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Interactive: true,
						Body: func() (io.ReadCloser, error) { return silentBody{make(chan struct{})}, nil }})
					failed <- err
				}()
			}
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("server: %v", err)
			}
			if middle {
				if err := <-failed; err == nil {
					t.Error("the client got an answer")
				}
			}
			if _, err := c.Do(context.Background(), secret("x")); err == nil {
				t.Error("a message on a closed connection was answered")
			}
		})
	}
}

// TestStreamClose closes an answer while the body of the request is silent: the
// body is closed, too, and nothing is left running.
func TestStreamClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		c := plain(n, n.pskClient("device"))
		overPipedHTTP(t, n, c)
		mustSend(t, c, secret("get tokens"), 2)
		body := silentBody{make(chan struct{})}
		n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if err := w.Flush(); err != nil {
				return err
			}
			_, err := io.ReadAll(m.Body)
			return err
		}
		r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Interactive: true, Body: func() (io.ReadCloser, error) { return body, nil }})
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		<-body.closed
	})
}

// TestStreamEarlyAnswerLate reads an early answer long after the server has done
// with it, while the request was still being sent.
func TestStreamEarlyAnswerLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := softNetwork(t)
		c := plain(n, n.pskClient("device"))
		overPipedHTTP(t, n, c)
		mustSend(t, c, secret("get tokens"), 2)
		n.handler = func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
			_, err := w.Write(sequenceBytes[:10000])
			return err
		}
		r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.ReaderBody(newSequence(2<<20), 0)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // of fake time
		if got := readAll(t, r.Body); got != string(sequenceBytes[:10000]) {
			t.Errorf("%d bytes of the answer", len(got))
		}
		r.Body.Close()
	})
}
