package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A reported keeps what a server reported about its messages.
func reported(s *msl.Server) *[]msl.Served {
	all := &[]msl.Served{}
	s.Report = func(_ context.Context, v msl.Served) { *all = append(*all, v) }
	return all
}

func TestReport(t *testing.T) {
	b := newFaultBench(t)
	b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		m.Note = "noted"
		return echo(ctx, w, m)
	})
	all := reported(b.server)
	faultScenarios["new PSK device"](b)
	b.body = bytes.Repeat([]byte{1, 2, 3, 5, 8, 13}, 200)
	b.mustSend()
	b.mustSend()
	if len(*all) != 2 {
		t.Fatalf("reported %+v", *all)
	}
	first, second := (*all)[0], (*all)[1]
	if first.Scheme != "PSK" || first.KeyExchange != "SYMMETRIC_WRAPPED" || !first.Authenticated {
		t.Errorf("first: %+v", first)
	}
	if first.KeyVersion != 0 || first.IssuedVersion != 1 || second.KeyVersion != 1 || second.IssuedVersion != 0 {
		t.Errorf("versions of the issuer key: %+v, %+v", first, second)
	}
	if second.Scheme != "" || second.KeyExchange != "" || second.MessageID != second.Message.MessageID {
		t.Errorf("second: %+v", second)
	}
	for _, v := range *all {
		if v.Identity == "" || v.Message == nil || v.Message.Note != "noted" || v.Err != nil || v.Response != 0 || v.Code != -1 || v.Fault != msl.NoFault || v.Took <= 0 {
			t.Errorf("%+v", v)
		}
		if v.Read < 500 || v.Written < 500 {
			t.Errorf("read %d, written %d", v.Read, v.Written)
		}
	}
}

// A brokenState cannot be written any more, as on a full disk.
type brokenState struct{ msl.State }

var errFull = errors.New("no space left on device")

func (brokenState) Renew(context.Context, string, int64, int64) (int64, error) { return 0, errFull }

// TestReportFaults checks who has to do something.
func TestReportFaults(t *testing.T) {
	answer := func(err error) func(*faultBench) {
		return func(b *faultBench) {
			b.handle(func(context.Context, *msl.ResponseWriter, *msl.Message) error { return err })
		}
	}
	for _, c := range []struct {
		name, scenario string
		damage         func(*faultBench)
		fault          msl.Fault
		code           msl.Code
	}{
		{"full disk", "renewal", func(b *faultBench) { b.server.State = brokenState{b.server.State} }, msl.FaultServer, msl.ErrInternalException},
		{"missing key", "returning device", func(b *faultBench) {
			var once sync.Once
			b.store.watch(func(int, string) (err error) {
				once.Do(func() { err = keystore.ErrNotFound })
				return err
			})
		}, msl.FaultKeyStore, msl.ErrInternalException},
		{"application", "returning device", answer(errors.New("no idea")), msl.FaultApplication, msl.ErrInternalException},
		{"service behind it", "returning device", answer(&msl.Error{Code: msl.ErrMSLCommsFailure}), msl.FaultApplication, msl.ErrMSLCommsFailure},
		{"application's own error", "returning device", answer(&msl.AppError{Response: msl.Fail}), msl.FaultPeer, -1},
		{"rejected", "returning device", answer(msl.ErrRejectUser), msl.FaultPeer, msl.ErrUserRejectedByApp},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newFaultBench(t)
			faultScenarios[c.scenario](b)
			c.damage(b)
			all := reported(b.server)
			if err := b.send(); err == nil {
				t.Fatal("it was answered")
			}
			v := (*all)[0]
			if v.Fault != c.fault || v.Code != c.code || v.Err == nil || v.Response == 0 {
				t.Errorf("%v, %v, %v: %v", v.Fault, int(v.Code), v.Response, v.Err)
			}
		})
	}
}

// TestReportStrangers wants what is not even a message to be the peer's fault, and one
// that breaks off that of the network.
func TestReportStrangers(t *testing.T) {
	b := newFaultBench(t)
	all := reported(b.server)
	for _, message := range []string{"garbage", `{"a":1}`, "", `{"headerdata":`} {
		b.server.Serve(t.Context(), "here", strings.NewReader(message), io.Discard, b.handler)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	b.server.Serve(ended, "here", strings.NewReader("gone"), io.Discard, b.handler)
	if len(*all) != 5 {
		t.Fatalf("reported %+v", *all)
	}
	for i, v := range *all {
		if v.Source != "here" || v.Identity != "" || v.Err == nil || i < 4 && v.Fault != msl.FaultPeer || i == 4 && v.Fault != msl.FaultNetwork && v.Fault != msl.FaultPeer {
			t.Errorf("%+v", v)
		}
	}
}

// TestReportLasting counts the bytes of each message on connections that last.
func TestReportLasting(t *testing.T) {
	n := softNetwork(t)
	all := reported(n.server)
	c := n.pskClient("device")
	a, b := pipe(t)
	served := make(chan error, 1)
	go func() { served <- n.server.ServeStream(t.Context(), "pipe", b, echo) }()
	c.Transport = &msl.StreamTransport{RW: a}
	mustSend(t, c, secret("one"), 2)
	mustSend(t, c, secret(strings.Repeat("two", 1000)), 2)
	a.Close()
	<-served
	if len(*all) != 2 {
		t.Fatalf("reported %+v", *all)
	}
	for _, v := range *all {
		if v.Err != nil || v.Message == nil || v.Source != "pipe" || v.Read < 300 || v.Written < 300 || v.Read > 20000 {
			t.Errorf("%+v", v)
		}
	}
}

func TestReportPeers(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	all := reported(two.server)
	asking, answering := connect(t, one, two)
	answering.Source = "pipe"
	done := serveAll(answering, echo, 2)
	for range 2 {
		ask(t, asking, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(*all) != 2 {
		t.Fatalf("reported %+v", *all)
	}
	for _, v := range *all {
		if v.Err != nil || v.Message == nil || v.Identity != one.identity || v.Source != "pipe" || v.Read < 300 || v.Written < 300 {
			t.Errorf("%+v", v)
		}
	}
}

// TestReportAfterward wants a message to be reported when its answer is sent, however long what
// comes afterward takes, and once.
func TestReportAfterward(t *testing.T) {
	n := softNetwork(t)
	told := make(chan msl.Served, 2)
	n.server.Report = func(_ context.Context, v msl.Served) { told <- v }
	c := n.pskClient("device")
	a, b := pipe(t)
	waits, served := make(chan struct{}), make(chan error, 1)
	go func() {
		served <- n.server.ServeStream(t.Context(), "pipe", b, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Afterward(func() error { <-waits; return nil })
			return echo(ctx, w, m)
		})
	}()
	c.Transport = &msl.StreamTransport{RW: a}
	mustSend(t, c, secret("subscribe"), 2)
	v := <-told // while the server waits
	if v.Err != nil || v.Source != "pipe" || v.KeyExchange == "" || v.Written < 300 {
		t.Errorf("%+v", v)
	}
	close(waits)
	a.Close()
	<-served
	if len(told) > 0 {
		t.Errorf("it is told again: %+v", <-told)
	}
}
