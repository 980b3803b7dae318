package mslhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// serveStreams serves connections of a listener with what serve does, and returns a way
// to connect. Errors of Serve go to the channel.
func serveStreams(t *testing.T, s *StreamServer, serve func(context.Context, *StreamConn) error) (func() net.Conn, <-chan error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 10)
	s.Serve = func(ctx context.Context, c *StreamConn) error {
		err := serve(ctx, c)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		ended <- err
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeListener(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}, ended
}

func readAll(_ context.Context, c *StreamConn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

// TestStreamSlow has a stranger that says nothing, one that says a little now and then,
// and one that proved itself and is silent for longer.
func TestStreamSlow(t *testing.T) {
	dial, ended := serveStreams(t, &StreamServer{Timeout: 100 * time.Millisecond}, readAll)
	dial()
	if err := <-ended; !errors.Is(err, ErrTimeout) {
		t.Errorf("silent: %v", err)
	}
	slow := dial()
	go func() {
		for err := error(nil); err == nil; time.Sleep(10 * time.Millisecond) {
			_, err = slow.Write([]byte("x"))
		}
	}()
	if err := <-ended; !errors.Is(err, ErrTimeout) {
		t.Errorf("slow: %v", err)
	}
}

// TestStreamProven lets a peer be silent once it has proven itself, and bounds the next
// message that it begins.
func TestStreamProven(t *testing.T) {
	dial, ended := serveStreams(t, &StreamServer{Timeout: 100 * time.Millisecond}, func(ctx context.Context, c *StreamConn) error {
		c.Proven()
		time.Sleep(200 * time.Millisecond)
		if ctx.Err() != nil {
			return errors.New("a proven peer was cut off")
		}
		c.Between()
		return readAll(ctx, c)
	})
	io.WriteString(dial(), "the next message never proves anything")
	if err := <-ended; !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

// TestStreamIdle ends a silent connection of a proven peer, if that is configured.
func TestStreamIdle(t *testing.T) {
	dial, ended := serveStreams(t, &StreamServer{Idle: 50 * time.Millisecond}, func(ctx context.Context, c *StreamConn) error {
		c.Proven()
		return readAll(ctx, c)
	})
	dial()
	var late net.Error
	if err := <-ended; !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("got %v", err)
	}
}

// TestStreamShutdown lets go of a connection between two messages, and waits for one
// that is in a message, until time is up.
func TestStreamShutdown(t *testing.T) {
	for name, busy := range map[string]bool{"between": false, "in a message": true} {
		t.Run(name, func(t *testing.T) {
			s := &StreamServer{}
			there := make(chan struct{})
			dial, ended := serveStreams(t, s, func(ctx context.Context, c *StreamConn) error {
				c.Proven()
				if !busy {
					c.Between()
				}
				close(there)
				return readAll(ctx, c)
			})
			dial()
			<-there
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			if err := s.Shutdown(ctx); (err != nil) != busy {
				t.Errorf("shutdown: %v", err)
			}
			if err := <-ended; (err != nil) != busy {
				t.Errorf("connection: %v", err)
			}
		})
	}
}

// TestStreamReadable tells that something came, and loses none of it.
func TestStreamReadable(t *testing.T) {
	dial, ended := serveStreams(t, &StreamServer{}, func(ctx context.Context, c *StreamConn) error {
		c.Proven()
		<-c.Readable()
		got, err := io.ReadAll(c)
		if string(got) != "hello" {
			t.Errorf("got %q", got)
		}
		return err
	})
	c := dial()
	io.WriteString(c, "hello")
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStreamFlood has more connections than are allowed: the one that has been silent
// for longest makes room, and what it was doing ends.
func TestStreamFlood(t *testing.T) {
	bounds := &Connections{Max: 2, PerSource: -1}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bounds.Listen(raw)
	began, ended := make(chan struct{}, 10), make(chan error, 10)
	s := &StreamServer{Context: bounds.Context, Serve: func(ctx context.Context, c *StreamConn) error {
		began <- struct{}{}
		err := readAll(ctx, c)
		ended <- err
		return err
	}}
	done := make(chan error, 1)
	go func() { done <- s.ServeListener(l) }()
	for range 3 {
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 3 {
		<-began
	}
	if err := <-ended; err == nil {
		t.Error("the connection that made room ended in order")
	}
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
