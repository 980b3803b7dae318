package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// Every operation of a server's key store fails once, or from then on, with every
// error: before the application runs nothing may have happened, and afterwards
// the answer must come.

// errDevice is an error without a kind.
var errDevice = errors.New("CKR_VENDOR_DEFINED")

// passing are the failures of a device after which another try may succeed.
var passing = []error{keystore.ErrUnavailable, keystore.ErrBusy, keystore.ErrLost}

// ours are failures of this side, whatever the operation: the peer is not at fault.
var ours = append([]error{keystore.ErrClosed, keystore.ErrPIN, keystore.ErrNotFound, keystore.ErrWeakKey,
	keystore.ErrWrongKey, keystore.ErrLocked, errDevice}, passing...)

// A faultBench is a network with a faulty store, and a record of what happened.
type faultBench struct {
	*network
	store  *faultyStore
	client *msl.Client
	body   []byte

	ran     int
	handled []int // at which operation each run of the application began
	refused []refusal
}

// A refusal is what the server logged about a refused message.
type refusal struct {
	code  msl.Code
	level slog.Level
}

func newFaultBench(t *testing.T) *faultBench {
	store := newFaultyStore(t)
	b := &faultBench{network: newNetwork(t, store), store: store, body: []byte("hello")}
	b.server.Log = slog.New(refusals{b, slog.DiscardHandler})
	b.handle(echo)
	return b
}

// handle sets what the application does.
func (b *faultBench) handle(next msl.Handler) {
	b.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if err := w.Answerable(); err != nil {
			return err
		}
		b.ran++
		b.handled = append(b.handled, len(b.store.operations()))
		return next(ctx, w, m)
	}
}

type refusals struct {
	b *faultBench
	slog.Handler
}

func (refusals) Enabled(context.Context, slog.Level) bool { return true }

func (h refusals) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "code" {
			h.b.refused = append(h.b.refused, refusal{msl.Code(a.Value.Int64()), r.Level})
		}
		return true
	})
	return nil
}

func (b *faultBench) send() error {
	req := &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody(b.body)}
	r, err := b.client.Do(context.Background(), req)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(data, b.body) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(data), len(b.body))
	}
	return nil
}

// quickRSAClient is an rsaClient that makes no key pairs, which takes longer than
// all the rest.
func (b *faultBench) quickRSAClient(identity string) *msl.Client {
	c := b.rsaClient(identity)
	x := c.KeyExchanges[0].(*keyx.AsymmetricWrapped)
	x.KeyPair = provisionPair(b.t, x.Store.(*soft.Store), "exchange", keystore.RSAUnwrap2048, nextIdentity(b.t)).(keyx.UnwrappingPair)
	return c
}

// restart clears the server's caches.
func (b *faultBench) restart() {
	b.server.Close()
	b.psk.Close()
	old := b.server
	b.server = &msl.Server{Name: old.Name, Local: old.Local, Peers: old.Peers, Users: old.Users, KeyExchanges: old.KeyExchanges,
		Issuer: old.Issuer, State: old.State, Directory: old.Directory, ServiceTokens: old.ServiceTokens, Capabilities: old.Capabilities,
		Limits: old.Limits, Log: old.Log}
	b.t.Cleanup(func() { b.server.Close() })
}

func (b *faultBench) mustSend() {
	b.t.Helper()
	if err := b.send(); err != nil {
		b.t.Fatal(err)
	}
}

// faultScenarios prepare a bench up to the message whose operations fail.
var faultScenarios = map[string]func(b *faultBench){
	"new PSK device": func(b *faultBench) { b.client = b.pskClient("device") },
	"new RSA device": func(b *faultBench) { b.client = b.quickRSAClient("device") },
	"returning device": func(b *faultBench) {
		b.client = b.pskClient("device")
		b.mustSend()
	},
	"returning device, new server": func(b *faultBench) {
		b.client = b.pskClient("device")
		b.mustSend()
		b.restart()
	},
	"renewal": func(b *faultBench) {
		b.client = b.quickRSAClient("device")
		b.mustSend()
		b.now = b.now.Add(2 * time.Hour)
	},
	"user and service tokens": func(b *faultBench) {
		b.client = b.pskClient("device")
		b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.SetUser("user@example.com")
			w.SetServiceToken("basket", []byte("apples"), msl.BindUser)
			return echo(ctx, w, m)
		})
	},
	"long answer": func(b *faultBench) {
		b.client = b.pskClient("device")
		b.mustSend()
		b.body = random(130 << 10)
	},
	"slow application": func(b *faultBench) {
		b.client = b.pskClient("device")
		b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			b.now = b.now.Add(time.Minute)
			return echo(ctx, w, m)
		})
	},
}

// count is how many operations the message of a scenario has.
func count(t *testing.T, prepare func(*faultBench)) (n int) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaultBench(t)
		prepare(b)
		b.store.watch(nil)
		b.mustSend()
		n = len(b.store.operations())
	})
	return n
}

// inject fails operation at, and those after it unless once.
func (b *faultBench) inject(at int, once bool, failure error) {
	b.ran, b.handled, b.refused = 0, nil, nil
	b.store.watch(func(n int, op string) error {
		if n == at || n > at && !once {
			return fmt.Errorf("fault: %s: %w", op, failure)
		}
		return nil
	})
}

// injected is one error of each sort.
func injected() []error {
	return []error{keystore.ErrUnavailable, keystore.ErrLost, errDevice, keystore.ErrPIN, keystore.ErrNotFound, keystore.ErrBadData, keystore.ErrForeign}
}

// TestFaults has each operation fail, with every third error, or with MSL_SOAK with each.
func TestFaults(t *testing.T) {
	skipWithRace(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, prepare := range faultScenarios {
		t.Run(name, func(t *testing.T) {
			for at := range count(t, prepare) {
				for i, failure := range injected() {
					if !soak() && (at+i)%3 != 0 {
						continue
					}
					for _, once := range []bool{true, false} {
						synctest.Test(t, func(t *testing.T) {
							b := newFaultBench(t)
							prepare(b)
							b.inject(at, once, failure)
							b.judge(t, at, once, failure, b.send())
						})
					}
				}
			}
		})
	}
}

// judge checks the outcome of a message.
func (b *faultBench) judge(t *testing.T, at int, once bool, failure, err error) {
	t.Helper()
	op := b.store.operations()[at]
	early := len(b.handled) == 0 || at < b.handled[0]
	complain := func(what string) {
		t.Helper()
		t.Errorf("operation %d, %s (before the application: %v, once: %v), fails with %v: %s: ran %d, %v", at, op, early, once, failure, what, b.ran, err)
	}
	switch {
	case b.ran > 1:
		complain("the application ran again")
	case early && err != nil && b.ran > 0 && failure != keystore.ErrBadData: // of the body, which the application reads
		complain("the application ran, and need not have")
	case early && err != nil && slices.Contains(ours, failure) && !transient(err):
		complain("not the server's own failure")
	case !early && once && slices.Contains(passing, failure) && err != nil:
		complain("no answer")
	case !early && transient(err) && (op == "Encrypt" || op == "Sign"):
		complain("the peer is asked to come again")
	}
	b.checkUnharmed(t)
}

// transient reports whether err says that the server itself failed, or could not answer.
func transient(err error) bool {
	var answer *msl.PeerError
	if errors.As(err, &answer) {
		return answer.Response == msl.TransientFailure && answer.Code == msl.ErrInternalException
	}
	return errors.Is(err, msl.ErrNoAnswer) && !errors.Is(err, msl.ErrAnswerLost)
}

// checkUnharmed sends another message, and looks for keys that were left open.
func (b *faultBench) checkUnharmed(t *testing.T) {
	t.Helper()
	b.store.watch(nil)
	if err := b.send(); err != nil {
		t.Errorf("the message after: %v", err)
	}
	b.server.Close()
	b.psk.Close()
	if n, _ := b.store.Live(); n != 0 {
		t.Errorf("%d keys are still open", n)
	}
}

// A key store's error about this side's own keys is not the peer's fault, and is logged
// for the operator; an error about data may be the peer's.
func TestKeyStoreVerdicts(t *testing.T) {
	skipWithRace(t)
	for _, c := range []struct {
		scenario, op string
		about        map[error]msl.Code // of the peer's data
	}{
		{"new PSK device", "Unseal msl psk", nil},
		{"new PSK device", "Generate", nil},
		{"new PSK device", "Wrap", nil},
		{"new PSK device", "Seal", nil},
		{"new PSK device", "Encrypt", nil},
		{"new PSK device", "Sum", nil},
		{"new PSK device", "Decrypt", map[error]msl.Code{keystore.ErrBadData: msl.ErrCiphertextBadPadding}},
		{"new RSA device", "WrapFor", map[error]msl.Code{keystore.ErrBadData: msl.ErrWrapError}},
		{"returning device, new server", "Unseal msl master token", map[error]msl.Code{keystore.ErrForeign: msl.ErrMasterTokenKeyCreationError}},
		{"returning device, new server", "Decrypt", nil}, // of this side's own token
		{"returning device", "Sum", nil},
		{"renewal", "Seal", nil},
	} {
		for _, failure := range append(ours, keystore.ErrBadData, keystore.ErrForeign) {
			want := msl.ErrInternalException
			if code, ok := c.about[failure]; ok {
				want = code
			}
			t.Run(fmt.Sprintf("%s/%s/%v", c.scenario, c.op, failure), func(t *testing.T) {
				b := newFaultBench(t)
				faultScenarios[c.scenario](b)
				var once sync.Once
				b.ran, b.refused = 0, nil
				b.store.watch(func(_ int, op string) (err error) {
					if op == c.op {
						once.Do(func() { err = fmt.Errorf("fault: %w", failure) })
					}
					return err
				})
				err := b.send()
				if failure == keystore.ErrLost && slices.Contains([]string{"Generate", "Wrap", "WrapFor", "Seal", "Encrypt"}, c.op) {
					// Lost keys that were not sent are replaced.
					if len(b.refused) != 0 || b.ran != 1 || err != nil {
						t.Errorf("refused %+v, ran %d: %v", b.refused, b.ran, err)
					}
					return
				}
				level := slog.LevelInfo
				if want == msl.ErrInternalException {
					level = slog.LevelError
				}
				if len(b.refused) != 1 || b.refused[0] != (refusal{want, level}) {
					t.Errorf("refused %+v, want %v at %v: %v", b.refused, want, level, err)
				}
				if again := want.Response() == msl.EntityReauth; (err == nil) != again || again != (b.ran == 1) {
					t.Errorf("ran %d, %v", b.ran, err)
				}
			})
		}
	}
}
