package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A sequence gives size bytes that do not compress. They come again after a prime
// number of bytes, so that lost, doubled or reordered data shows.
type sequence struct{ size, at int64 }

var sequenceBytes = random(1000003)

func newSequence(size int64) *sequence { return &sequence{size: size} }

func (s *sequence) Read(p []byte) (int, error) {
	if s.at == s.size {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), s.size-s.at)], sequenceBytes[s.at%int64(len(sequenceBytes)):])
	s.at += int64(n)
	return n, nil
}

// A sequenceCheck takes those bytes again.
type sequenceCheck struct {
	want *sequence
	buf  []byte
}

func newSequenceCheck(size int64) *sequenceCheck { return &sequenceCheck{want: newSequence(size)} }

func (c *sequenceCheck) Write(p []byte) (int, error) {
	c.buf = append(c.buf[:0], p...)
	if n, err := io.ReadFull(c.want, c.buf); err != nil || !bytes.Equal(c.buf, p) {
		return 0, fmt.Errorf("other data at %d: %d bytes, %v", c.want.at-int64(n), n, err)
	}
	return len(p), nil
}

func (c *sequenceCheck) end() error {
	if c.want.at != c.want.size {
		return fmt.Errorf("%d bytes of %d", c.want.at, c.want.size)
	}
	return nil
}

const raceDetector = msl.RaceDetector

func skipWithRace(t *testing.T) {
	t.Helper()
	msl.SkipWithRace(t)
}

// scaled returns a smaller size under the race detector.
func scaled(size int64) int64 {
	if raceDetector {
		return size / 16
	}
	return size
}

// overHTTP puts a network behind a real HTTP server, and c in front of it.
func overHTTP(t testing.TB, n *network, c *msl.Client, h *mslhttp.Handler) *httptest.Server {
	t.Helper()
	h.Server = n.server
	if h.Handle == nil {
		h.Handle = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) }
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c.Transport = &mslhttp.Transport{URL: s.URL, Client: s.Client(), MaxAnswer: -1}
	return s
}

// plain compresses nothing, so that a stream is as long as it is.
func plain(n *network, c *msl.Client) *msl.Client {
	n.server.Capabilities, c.Capabilities = nil, nil
	return c
}

// heapOver runs f and returns by how many bytes at most the heap grew while it ran.
func heapOver(f func()) int64 {
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, stopped := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&now)
				most = max(most, int64(now.HeapInuse)-int64(before.HeapInuse))
			case <-stop:
				stopped <- most
				return
			}
		}
	}()
	f()
	close(stop)
	return <-stopped
}

// TestStreamMemory sends a long payload each way through HTTP. MSL_SOAK=1 makes it
// a gibibyte.
func TestStreamMemory(t *testing.T) {
	skipWithRace(t)
	size, bound := int64(64<<20), int64(64<<20)
	if soak() {
		size = 1 << 30
	}
	n := softNetwork(t)
	c := plain(n, n.pskClient("device"))
	overHTTP(t, n, c, &mslhttp.Handler{MaxBody: -1, Timeout: -1, Idle: time.Minute})
	mustSend(t, c, secret("get tokens"), 2)
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		got := newSequenceCheck(size)
		if _, err := io.Copy(got, m.Body); err != nil {
			return err
		}
		if err := got.end(); err != nil {
			return err
		}
		_, err := io.Copy(w, newSequence(size))
		return err
	}
	grown := heapOver(func() {
		r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.ReaderBody(newSequence(size), 0)})
		if err != nil {
			t.Fatal(err)
		}
		got := newSequenceCheck(size)
		_, err = io.Copy(got, r.Body)
		if err := errors.Join(err, got.end(), r.Body.Close()); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("heap grew by %d KiB for %d MiB each way", grown>>10, size>>20)
	if grown > bound {
		t.Errorf("heap grew by %d bytes, more than %d", grown, bound)
	}
}

// TestStreamBodyLimit sends more than the server takes. The handler gets no more
// than the bound, and the client an error.
func TestStreamBodyLimit(t *testing.T) {
	skipWithRace(t)
	for name, test := range map[string]struct {
		limit, size int64
		fits        bool
	}{
		"within":         {4 << 20, 1 << 20, true},
		"beyond":         {1 << 20, 4 << 20, false},
		"within default": {0, 4 << 20, true},
		"beyond default": {0, 30 << 20, false}, // 64 MiB is room for 26
		"default lifted": {-1, 30 << 20, true},
		"far beyond":     {1 << 20, 1 << 30, false},
	} {
		t.Run(name, func(t *testing.T) {
			if raceDetector && test.size == 30<<20 {
				t.Skip("too long for the race detector")
			}
			n := softNetwork(t)
			c := plain(n, n.pskClient("device"))
			overHTTP(t, n, c, &mslhttp.Handler{MaxBody: test.limit})
			mustSend(t, c, secret("get tokens"), 2)
			var read int64
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) (err error) {
				read, err = io.Copy(io.Discard, m.Body)
				return err
			}
			_, _, err := send(t, c, &msl.Request{Encrypted: true, Body: msl.ReaderBody(newSequence(test.size), 0)})
			if test.fits && (err != nil || read != test.size) {
				t.Errorf("%d bytes of %d, %v", read, test.size, err)
			}
			if limit := max(test.limit, 0); !test.fits && (err == nil || limit > 0 && read > limit || read >= test.size) {
				t.Errorf("handler read %d bytes, error %v", read, err)
			}
		})
	}
}

// TestStreamUnknownMembers sends headers with members that no version of the protocol has, one
// of them named as the data of a chunk. They are ignored, and the message is not taken for
// what is left of the one before.
func TestStreamUnknownMembers(t *testing.T) {
	r := newRecorded(t)
	strange := func() []byte {
		outer := with(pskClient1.signed("headerdata", pskClient1.encrypt(encode(one()))), byPSK("client1"))
		head := encode(with(outer, object{"payload": "AAAA", "x": []int{1}}))
		return append(head, encode(pskClient1.signed("payload", pskClient1.encrypt(encode(hello))))...)
	}
	in := bytes.Join([][]byte{fromPSK(), strange(), strange(), fromPSK()}, nil)
	served := 0
	err := r.server.ServeStream(t.Context(), "test", struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(in), io.Discard}, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		served++
		w.Encrypted, w.Authenticated = false, false
		_, err := io.Copy(w, m.Body)
		return err
	})
	if err != nil || served != 4 {
		t.Errorf("%d messages of 4 were served: %v", served, err)
	}
}

// TestStreamLongHeader sends a header that is too long as the first and as a later message:
// it is refused, and not passed over, so that its sender does not wait for nothing.
func TestStreamLongHeader(t *testing.T) {
	long := encode(with(with(pskClient1.signed("headerdata", make([]byte, 1<<20)), byPSK("client1")), object{"x": "y"}))
	for before := range 2 {
		r := newRecorded(t)
		in := append(bytes.Repeat(fromPSK(), before), long...)
		served, out := 0, bytes.Buffer{}
		err := r.server.ServeStream(t.Context(), "test", struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), &out}, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			served++
			return msl.ErrNoReply
		})
		if limit := (*msl.LimitError)(nil); served != before || out.Len() == 0 && !errors.As(err, &limit) {
			t.Errorf("%d messages before: %d were served, answer %q: %v", before, served, out.Bytes(), err)
		}
	}
}

// TestStreamConnectionKept sends long messages, one after the other, on one
// connection.
func TestStreamConnectionKept(t *testing.T) {
	n := softNetwork(t)
	c := plain(n, n.pskClient("device"))
	var opened int
	s := httptest.NewUnstartedServer(&mslhttp.Handler{Server: n.server, Handle: echo})
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened++
		}
	}
	s.Start()
	defer s.Close()
	c.Transport = &mslhttp.Transport{URL: s.URL, Client: s.Client()}
	for range 5 {
		mustSend(t, c, secret(string(random(int(scaled(2<<20))))), 2)
	}
	if opened != 1 {
		t.Errorf("%d connections", opened)
	}
}

// TestStreamAnswerLeft leaves an answer with what follows its header, such as the chunk that some
// send after their answer to a handshake: the next answer begins with its own header.
func TestStreamAnswerLeft(t *testing.T) {
	sent := `{"headerdata":"1"}{"payload":"1"}{"payload":"2"}{"headerdata":"2"}{"payload":"3"}`
	rt := &msl.StreamTransport{RW: struct {
		io.Reader
		io.Writer
	}{strings.NewReader(sent), io.Discard}}
	for _, want := range []string{`{"headerdata":"1"}`, `{"headerdata":"2"}`} {
		answer, err := rt.RoundTrip(t.Context(), func(io.Writer) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(want))
		if n, err := answer.Read(p); err != nil || string(p[:n]) != want {
			t.Errorf("read %q, %v, want %q", p[:n], err, want)
		}
		answer.Close()
	}
}
