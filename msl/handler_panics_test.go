package msl_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A panicState panics where a server asks for what a message needs.
type panicState struct{ msl.State }

func (panicState) Revoked(context.Context, string, string) error { panic("state") }

// A panicScheme is an entity scheme that panics.
type panicScheme struct{ msl.EntityScheme }

func (panicScheme) Open(context.Context, []byte) (msl.Sender, func(), error) { panic("scheme") }

// Wherever the parts of a server panic before the handler runs, nothing is left of the
// message: no place among those under way, no memory, no keys of its session.
func TestPanicBeforeHandler(t *testing.T) {
	for name, breaks := range map[string]func(*msl.Server){
		"state":   func(s *msl.Server) { s.State = panicState{s.State} },
		"watcher": func(s *msl.Server) { s.Headers = func(msl.HeaderInfo) { panic("watcher") } },
	} {
		for kind, serve := range map[string]func(*msl.Server, []byte){
			"message": func(s *msl.Server, m []byte) {
				s.Serve(context.Background(), "test", bytes.NewReader(m), io.Discard, echo)
			},
			"stream": func(s *msl.Server, m []byte) {
				rw := struct {
					io.Reader
					io.Writer
				}{bytes.NewReader(m), io.Discard}
				s.ServeStream(context.Background(), "test", rw, echo)
			},
		} {
			t.Run(name+" "+kind, func(t *testing.T) { panicBefore(t, breaks, serve) })
		}
	}
}

func panicBefore(t *testing.T, breaks func(*msl.Server), serve func(*msl.Server, []byte)) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newSlowBench(t)
		var message []byte
		b.intercept = func(m []byte) []byte { message = bytes.Clone(m); return m }
		b.mustSend()
		b.mustSend()
		objects, _ := b.store.Live()
		breaks(b.server)
		for range 3 {
			func() {
				defer func() {
					if recover() == nil {
						t.Error("nothing panics")
					}
				}()
				serve(b.server, message)
			}()
		}
		time.Sleep(time.Minute)
		established, steps := b.server.UnderWay()
		unproven, proven := b.server.InUse()
		if established != 0 || steps != 0 || unproven != 0 || proven != 0 {
			t.Errorf("left: %d messages, %d steps, %d and %d bytes", established, steps, unproven, proven)
		}
		if now, _ := b.store.Live(); now != objects {
			t.Errorf("%d key objects before, and %d after", objects, now)
		}
		b.server.Close()
		if now, _ := b.store.Live(); now >= objects {
			t.Errorf("%d key objects are left of %d when the sessions are forgotten", now, objects)
		}
	})
}

// TestPanicInScheme has the scheme panic that judges a sender without a session.
func TestPanicInScheme(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newSlowBench(t)
		var first []byte
		b.intercept = func(m []byte) []byte {
			if first == nil {
				first = bytes.Clone(m)
			}
			return m
		}
		b.mustSend()
		for i, s := range b.server.Peers {
			b.server.Peers[i] = panicScheme{s}
		}
		func() {
			defer func() { recover() }()
			b.server.Serve(t.Context(), "test", bytes.NewReader(first), io.Discard, echo)
		}()
		time.Sleep(time.Minute)
		if established, steps := b.server.UnderWay(); established != 0 || steps != 0 {
			t.Errorf("left: %d messages, %d steps", established, steps)
		}
	})
}
