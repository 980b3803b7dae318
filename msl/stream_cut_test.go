package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// objectEnds returns where the objects of a message end.
func objectEnds(t testing.TB, message []byte) []int {
	t.Helper()
	var ends []int
	d := json.NewDecoder(bytes.NewReader(message))
	for d.More() {
		var o json.RawMessage
		if err := d.Decode(&o); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(d.InputOffset()))
	}
	return ends
}

// A cut is a place where a message may break off.
type cut struct {
	name   string
	object int // the last one that is whole, the header being 0; -1 for none
	at     func(ends []int) int
}

// cuts are places in a message of a header and n chunks, except its end.
func cuts(n int) []cut {
	var all []cut
	for i := range n + 1 {
		what := fmt.Sprintf("chunk %d", i)
		if i == 0 {
			what = "header"
		}
		begin := func(ends []int) int {
			if i == 0 {
				return 0
			}
			return ends[i-1]
		}
		all = append(all,
			cut{"after the first byte of " + what, i - 1, func(e []int) int { return begin(e) + 1 }},
			cut{"in the middle of " + what, i - 1, func(e []int) int { return (begin(e) + e[i]) / 2 }},
			cut{"before the last byte of " + what, i - 1, func(e []int) int { return e[i] - 1 }})
		if i < n {
			all = append(all, cut{"after " + what, i, func(e []int) int { return e[i] }})
		}
	}
	return all
}

// chunky is data of three chunks, the last one of them not full.
var chunky = bytes.Repeat([]byte("0123456789abcdef"), (2<<16+1000)/16)

const chunks = 3

// isCut reports whether an error says that something broke off.
func isCut(err error) bool {
	return errors.Is(err, msl.ErrTruncated) && errors.Is(err, io.ErrUnexpectedEOF)
}

// wholeChunks is how much data the chunks before a cut have.
func wholeChunks(object int) int { return min(max(object, 0)*64<<10, len(chunky)) }

// TestStreamCutRequest cuts requests off. The handler notices, and nothing is
// answered.
func TestStreamCutRequest(t *testing.T) {
	n := softNetwork(t)
	c := plain(n, n.pskClient("device"))
	mustSend(t, c, secret("get tokens"), 2)
	var message []byte
	n.intercept = func(m []byte) []byte { message = m; return m }
	mustSend(t, c, secret(string(chunky)), 2)
	ends := objectEnds(t, message)
	if len(ends) != chunks+1 {
		t.Fatalf("%d objects", len(ends))
	}
	h := httptest.NewServer(&mslhttp.Handler{Server: n.server, Handle: func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { return n.handler(ctx, w, m) }})
	defer h.Close()
	for _, cut := range cuts(chunks) {
		t.Run(cut.name, func(t *testing.T) {
			var read []byte
			var readErr error
			n.handler = func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
				read, readErr = io.ReadAll(m.Body)
				return readErr
			}
			var answer bytes.Buffer
			part := message[:cut.at(ends)]
			err := n.server.Serve(context.Background(), "test", bytes.NewReader(part), &answer, n.handler)
			if cut.object < 0 {
				if err != nil || !bytes.Contains(answer.Bytes(), []byte("errordata")) {
					t.Errorf("Serve: %v, answer %q", err, answer.Bytes())
				}
				return
			}
			if !isCut(err) || !isCut(readErr) || answer.Len() > 0 || len(read) != wholeChunks(cut.object) {
				t.Errorf("Serve: %v; handler read %d bytes, %v; answer %q", err, len(read), readErr, answer.Bytes())
			}
			readErr = nil
			r, err := http.Post(h.URL, "", bytes.NewReader(part)) // whole for HTTP
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if !isCut(readErr) || r.StatusCode != http.StatusBadRequest {
				t.Errorf("over HTTP: handler %v, status %d", readErr, r.StatusCode)
			}
		})
	}
}

// TestStreamCutRefused cuts requests off that are refused before they are read: a connection
// that lasts has one error for one message, and no signature for the rest of it.
func TestStreamCutRefused(t *testing.T) {
	n := softNetwork(t)
	c := plain(n, n.pskClient("device"))
	mustSend(t, c, secret("get tokens"), 2)
	var message []byte
	n.intercept = func(m []byte) []byte { message = m; return m }
	mustSend(t, c, secret(string(chunky)), 2)
	ends := objectEnds(t, message)
	refuse := func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrMasterTokenUntrusted }
	serve := func(r io.Reader) (answers int, err error) {
		var answer bytes.Buffer
		err = n.server.ServeStream(context.Background(), "test", struct {
			io.Reader
			io.Writer
		}{r, &answer}, refuse)
		return bytes.Count(answer.Bytes(), []byte("errordata")), err
	}
	for _, cut := range cuts(chunks)[4:] {
		if answers, err := serve(bytes.NewReader(message[:cut.at(ends)])); answers != 1 || err != nil && !isCut(err) {
			t.Errorf("%s: %d errors are sent, %v", cut.name, answers, err)
		}
	}
	gone := errors.New("connection reset")
	for want, before := range []string{"", string(message)} {
		r := io.MultiReader(strings.NewReader(before), iotest.ErrReader(gone))
		if answers, err := serve(r); answers != want || !errors.Is(err, gone) {
			t.Errorf("reset after %d messages: %d errors are sent, %v", want, answers, err)
		}
	}
}

// TestStreamCutAnswer cuts answers off, in a stream that ends cleanly.
func TestStreamCutAnswer(t *testing.T) {
	n := softNetwork(t)
	c := plain(n, n.pskClient("device"))
	mustSend(t, c, secret("get tokens"), 2)
	var at func([]int) int
	cutter := transportFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		answer, err := n.RoundTrip(ctx, write)
		if err != nil {
			return nil, err
		}
		whole := []byte(readAll(t, answer))
		return io.NopCloser(bytes.NewReader(whole[:at(objectEnds(t, whole))])), nil
	})
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := cutter(r.Context(), func(w io.Writer) error { _, err := io.Copy(w, r.Body); return err })
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(w, answer)
	}))
	defer relay.Close()
	at, c.Transport = func([]int) int { return 0 }, cutter
	if _, err := c.Do(context.Background(), secret("x")); !errors.Is(err, msl.ErrMSLParseError) {
		t.Errorf("no answer at all: %v", err)
	}
	for _, cut := range cuts(chunks) {
		for name, transport := range map[string]msl.Transport{"": cutter, " over HTTP": &mslhttp.Transport{URL: relay.URL}} {
			if raceDetector && name == "" {
				continue // nothing happens at the same time
			}
			t.Run(cut.name+name, func(t *testing.T) {
				at, c.Transport = cut.at, transport
				r, err := c.Do(context.Background(), secret(string(chunky)))
				if cut.object < 0 {
					if !isCut(err) {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer r.Body.Close()
				if read, err := io.ReadAll(r.Body); !isCut(err) || len(read) != wholeChunks(cut.object) {
					t.Errorf("read %d bytes, %v", len(read), err)
				}
			})
		}
	}
}

// TestStreamCutHTTP breaks the HTTP message off together with the one in it.
func TestStreamCutHTTP(t *testing.T) {
	for _, name := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			c := plain(n, n.pskClient("device"))
			carriers[name](t, n, c)
			mustSend(t, c, secret("get tokens"), 2)
			broken := errors.New("broken")

			handled := make(chan error, 1)
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				_, err := io.Copy(io.Discard, m.Body)
				handled <- err
				return err
			}
			_, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(newSequence(scaled(4<<20)), failing{broken})), nil
			}})
			if !errors.Is(err, broken) {
				t.Errorf("client: %v", err)
			}
			if err := <-handled; err == nil || name == "HTTP/1.1" && !isCut(err) {
				t.Errorf("handler: %v", err)
			}

			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				_, err := io.Copy(w, io.MultiReader(newSequence(scaled(4<<20)), failing{broken}))
				return err
			}
			r, err := c.Do(context.Background(), secret("x"))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if n, err := io.Copy(io.Discard, r.Body); err == nil || name == "HTTP/1.1" && !isCut(err) {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }
