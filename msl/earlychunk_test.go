package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// latency is that of each operation of a server's slow device, in the time of a bubble.
const latency = time.Millisecond

// newSlowBench makes a bench with a client that holds a token, and returns a message of
// its, too.
func newSlowBench(t *testing.T) (b *faultBench, message []byte) {
	b = newFaultBench(t)
	b.client = b.pskClient("device")
	b.mustSend()
	b.intercept = func(m []byte) []byte {
		message = bytes.Clone(m)
		return m
	}
	b.mustSend()
	b.intercept = nil
	b.store.latency = latency
	return b, message
}

// onStream answers a message on a connection that lasts.
func (b *faultBench) onStream(message []byte) ([]byte, error) {
	var answer bytes.Buffer
	rw := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(message), &answer}
	err := b.server.ServeStream(context.Background(), "test", rw, b.handler)
	return answer.Bytes(), err
}

// A message of one chunk has eight operations: two to open its header, two to open its
// chunk, and as many to make those of the answer. No more than four come one after the
// other.
func TestOperationsAtTheSameTime(t *testing.T) {
	for name, c := range map[string]struct {
		handle msl.Handler
		serve  func(b *faultBench, message []byte) error
		took   int
	}{
		"POST": {echo, func(b *faultBench, _ []byte) error { return b.send() }, 4},
		"stream": {echo, func(b *faultBench, message []byte) error {
			_, err := b.onStream(message)
			return err
		}, 4},
		"session that was forgotten": {echo, func(b *faultBench, message []byte) error {
			b.restart() // its token is verified and decrypted, and its keys are unsealed together
			return b.send()
		}, 3 + 4},
		"chunk that arrives late": {echo, func(b *faultBench, message []byte) error {
			chunk := bytes.LastIndex(message, []byte(`{"payload"`))
			r := io.MultiReader(bytes.NewReader(message[:chunk]), bytes.NewReader(message[chunk:]))
			return b.server.Serve(context.Background(), "test", r, io.Discard, b.handler)
		}, 6},
		"application that asks for a token": {func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.SetServiceToken("basket", []byte("apples"), msl.BindNone)
			return echo(ctx, w, m)
		}, func(b *faultBench, _ []byte) error { return b.send() }, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, message := newSlowBench(t)
				b.handle(c.handle)
				start := time.Now()
				if err := c.serve(b, message); err != nil {
					t.Fatal(err)
				}
				if took := int(time.Since(start) / latency); took != c.took {
					t.Errorf("%d operations one after the other, want %d", took, c.took)
				}
			})
		})
	}
}

// An outcome is what became of a message.
type outcome struct {
	err     string
	refused []refusal
	data    string // that the application read
	failed  string // why it read no more
}

func (b *faultBench) outcomeOf(message []byte) (v outcome) {
	b.refused = nil
	err := b.server.Serve(context.Background(), "test", bytes.NewReader(message), io.Discard,
		func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			data, err := io.ReadAll(m.Body)
			v.data, v.failed = string(data), fmt.Sprint(err)
			w.Write(data)
			return err
		})
	v.err, v.refused = fmt.Sprint(err), b.refused
	return v
}

// Opening a chunk early changes no verdict: whatever is wrong with a message, the error is
// the one that comes first in the protocol.
func TestEarlyChunkChangesNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, whole := newSlowBench(t)
		chunk := bytes.LastIndex(whole, []byte(`{"payload"`))
		if chunk < 0 {
			t.Fatalf("no chunk in %s", whole)
		}
		var tried [][]byte
		step := 71
		if soak() {
			step = 7
		}
		for i := 0; i < len(whole); i += step {
			one := bytes.Clone(whole)
			one[i] ^= 1 << (i % 8)
			both := bytes.Clone(one)
			both[chunk+20] ^= 1
			tried = append(tried, one, both, whole[:i])
		}
		for i, message := range append(tried, whole, append(bytes.Clone(whole), whole[chunk:]...)) {
			b.store.latency = 0
			want := b.outcomeOf(message)
			b.store.latency = latency
			if got := b.outcomeOf(message); got.err != want.err || got.data != want.data || got.failed != want.failed || !slices.Equal(got.refused, want.refused) {
				t.Fatalf("message %d, %s: %+v, want %+v", i, message, got, want)
			}
		}
	})
}

// The chunk of a header that is forged is verified at most, and not decrypted.
func TestChunkOfForgedHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, message := newSlowBench(t)
		i := bytes.Index(message, []byte(`"headerdata":"`)) + 40
		message[i] ^= 1
		b.store.watch(nil)
		if v := b.outcomeOf(message); len(v.refused) != 1 || v.data != "" {
			t.Errorf("%+v", v)
		}
		if slices.Contains(b.store.operations(), "Decrypt") {
			t.Errorf("operations: %v", b.store.operations())
		}
	})
}

// Every operation of a message fails, once or for good, at a device where some are under
// way at the same time: the application never runs for a peer that is then asked to send
// the message again, and a failure that passes costs no answer once it ran.
func TestFaultsAtTheSameTime(t *testing.T) {
	failures := []error{keystore.ErrUnavailable, keystore.ErrLost, errDevice, keystore.ErrBadData}
	for at := range 8 {
		for _, failure := range failures {
			for _, once := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					b, _ := newSlowBench(t)
					b.inject(at, once, failure)
					err := b.send()
					switch {
					case b.ran > 1, b.ran == 1 && at >= 4 && transient(err): // those before are of the request
						t.Errorf("operation %d fails with %v (once: %v): ran %d, %v", at, failure, once, b.ran, err)
					case once && b.ran == 1 && slices.Contains(passing, failure) && err != nil:
						t.Errorf("operation %d fails once with %v: no answer: %v", at, failure, err)
					case !once && at < 8 && err == nil:
						t.Errorf("operation %d fails with %v, and there is an answer", at, failure)
					}
					b.store.latency = 0
					b.checkUnharmed(t)
				})
			}
		}
	}
}

// An answer whose header cannot be protected beside the application is an error that does
// not ask the peer to come again.
func TestDraftFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newSlowBench(t)
		b.ran = 0
		b.store.watch(func(n int, op string) error {
			if n >= 4 && op != "Sign" { // the header and the chunk are open
				return keystore.ErrUnavailable
			}
			return nil
		})
		var answer *msl.PeerError
		if err := b.send(); !errors.As(err, &answer) || answer.Code != msl.ErrMSLEncodeError || b.ran != 1 {
			t.Errorf("ran %d: %v", b.ran, err)
		}
	})
}
