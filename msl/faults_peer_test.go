package msl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A peerExchange is one request in a peer-to-peer network, whose answering side
// has a faulty store.
type peerExchange struct {
	store   *faultyStore
	ran     int
	asked   int64 // the id of the request
	handled int   // at which operation
	err     error
	data    string
}

func exchangePeers(t *testing.T, scheme string, fault func(n int, op string) error) *peerExchange {
	e := &peerExchange{store: newFaultyStore(t), handled: -1}
	one := &side{network: softNetwork(t), identity: "one", store: soft.New()}
	two := &side{network: newNetwork(t, e.store), identity: "two", store: soft.New()}
	t.Cleanup(func() { one.store.Close(); two.store.Close() })
	one.enrol(two, "PSK")
	two.enrol(one, scheme)
	first, second := connect(t, one, two)
	e.store.watch(fault)
	served := serveAll(second, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		e.ran++
		e.asked = m.MessageID
		e.handled = len(e.store.operations())
		w.SetServiceToken("basket", []byte("apples"), msl.BindEntity)
		return echo(ctx, w, m)
	}, 1)
	r, err := first.Request(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
	if err == nil {
		data, failed := io.ReadAll(r.Body)
		e.data, err = string(data), errors.Join(failed, r.Body.Close())
	}
	e.err = err
	<-served
	two.server.Close()
	two.psk.Close()
	if n, _ := e.store.Live(); n != 0 {
		t.Errorf("%d keys are still open", n)
	}
	return e
}

func TestPeerFaults(t *testing.T) {
	skipWithRace(t)
	var whole *peerExchange
	synctest.Test(t, func(t *testing.T) { whole = exchangePeers(t, "PSK", nil) })
	if whole.err != nil || whole.ran != 1 || whole.data != "hello" {
		t.Fatalf("%+v", whole)
	}
	for at, op := range whole.store.operations() {
		for _, failure := range injected() {
			for _, once := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					e := exchangePeers(t, "PSK", func(n int, op string) error {
						if n == at || n > at && !once {
							return fmt.Errorf("fault: %s: %w", op, failure)
						}
						return nil
					})
					early := at < whole.handled
					good := e.err == nil && e.data == "hello"
					if failure == keystore.ErrLost && once && e.ran == 1 && good {
						return // lost keys that were not sent are replaced
					}
					switch {
					case early && (e.ran > 0 || !transient(e.err)) && once && slices.Contains(ours, failure),
						early && e.ran > 0 && failure != keystore.ErrBadData, // of the body, which the application reads
						e.ran > 1,
						!early && once && slices.Contains(passing, failure) && !good:
						t.Errorf("operation %d, %s (before the application: %v, once: %v), fails with %v: ran %d, %v", at, op, early, once, failure, e.ran, e.err)
					}
				})
			}
		}
	}
}

// TestPeerFaultsAfterHandshake fails permanently after the application ran and the
// answer's own handshake was answered: the error answers the last message received.
func TestPeerFaultsAfterHandshake(t *testing.T) {
	skipWithRace(t)
	var whole *peerExchange
	synctest.Test(t, func(t *testing.T) { whole = exchangePeers(t, "RSA", nil) })
	if whole.err != nil || whole.ran != 1 || whole.data != "hello" {
		t.Fatalf("%+v", whole)
	}
	var answered []int64 // how far each error is from an answer to the request
	for at := whole.handled; at < len(whole.store.operations()); at++ {
		synctest.Test(t, func(t *testing.T) {
			e := exchangePeers(t, "RSA", func(n int, op string) error {
				if n >= at {
					return fmt.Errorf("fault: %s: %w", op, keystore.ErrPIN)
				}
				return nil
			})
			var refusal *msl.PeerError
			if !errors.As(e.err, &refusal) || refusal.Code != msl.ErrMSLEncodeError || e.ran != 1 {
				t.Fatalf("operation %d, %s: ran %d, %v", at, whole.store.operations()[at], e.ran, e.err)
			}
			answered = append(answered, refusal.MessageID-1-e.asked)
		})
	}
	if got := slices.Compact(answered); !slices.Equal(got, []int64{0, 2}) {
		t.Errorf("the errors answer %v messages after the request, want 0 and then 2", got)
	}
}
