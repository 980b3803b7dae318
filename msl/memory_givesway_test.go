package msl_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// replayed is a recorded header with something behind it that needs no key to make.
func replayed(keys rawKeys, identity string) string {
	m := string(keys.message(byPSK(identity), one(), hello))
	return m[:strings.LastIndex(m, `{"payload"`)] + `{"payload":"` + strings.Repeat("A", 300<<10)
}

// A sender of recorded headers that then sends nothing makes room for devices, also in
// the memory for authenticated senders.
func TestReplayedHeadersMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.addPSK("client4", pskClient1)
		r.server.Limits = tight
		r.server.Limits.Proven = 10 << 20
		var stalled []*staller
		var ends []chan exchanged
		for range 4 {
			for _, head := range []string{replayed(pskClient1, "client1"), replayed(pskClient2, "client2")} {
				s := newStaller(head)
				stalled, ends = append(stalled, s), append(ends, r.started("evil", s, echo))
				synctest.Wait()
			}
		}
		time.Sleep(4 * time.Second)
		began := time.Now()
		e := r.serve(pskClient1.message(byPSK("client4"), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 25<<10)})))
		if e.served != nil || len(e.body) != 100<<10 || time.Since(began) > 3*time.Second {
			t.Errorf("a device: %v, %d bytes after %v", e.served, len(e.body), time.Since(began))
		}
		for i, s := range stalled {
			s.Interrupt()
			<-ends[i]
		}
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// A message whose application is at work never makes room, however long that takes. A
// byte now and then does not keep a stranger's place.
func TestWhoMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = tight
		proceed := make(chan bool)
		whole := newStaller(string(pskClient1.message(byPSK("client1"), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 40<<10)}))))
		working := r.started("there", whole, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if _, err := io.CopyN(io.Discard, m.Body, 160<<10); err != nil {
				return err
			}
			<-proceed
			return nil
		})
		dripping := dripper{newStaller(`{"x":"` + strings.Repeat("x", 900<<10))}
		slow := r.started("slow", dripping, echo)
		time.Sleep(20 * time.Second)
		for range 2 {
			r.started("other", strings.NewReader(`{"x":"`+strings.Repeat("x", 900<<10)+`"}`), echo)
			r.started("again", strings.NewReader(replayed(pskClient2, "client2")), echo)
		}
		time.Sleep(5 * time.Second)
		select {
		case <-dripping.interrupted:
		default:
			t.Error("a stranger keeps memory by a byte now and then")
		}
		select {
		case <-whole.interrupted:
			t.Error("a message that was read was interrupted")
		default:
		}
		close(proceed)
		if e := <-working; e.served != nil {
			t.Error(e.served)
		}
		<-slow
		synctest.Wait()
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// A dripper sends a byte every half second.
type dripper struct{ *staller }

func (d dripper) Read(p []byte) (int, error) {
	if n, err := d.Reader.Read(p); err == nil {
		return n, nil
	}
	select {
	case <-d.interrupted:
		return 0, context.DeadlineExceeded
	case <-time.After(time.Second / 2):
		p[0] = 'x'
		return 1, nil
	}
}
