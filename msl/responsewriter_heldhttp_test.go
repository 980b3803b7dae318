package msl_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// postAll is an HTTP/1.1 client as most are: it writes a whole request, and then
// reads. chunked sends the body without its length.
func postAll(t *testing.T, address string, message []byte, chunked bool) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(message))
	if chunked {
		head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		message = fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(message), message)
	}
	if _, err := conn.Write(append([]byte(head), message...)); err != nil {
		t.Fatalf("request: %v", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("HTTP %s: %d bytes, %v", response.Status, len(answer), err)
	}
	return answer
}

// serveRecorded serves the recorded server to clients of HTTP/1.1.
func serveRecorded(t *testing.T, r *recorded, handle msl.Handler) string {
	s := httptest.NewServer(&mslhttp.Handler{Server: r.server, Handle: handle})
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// longRequest is a message of client1's session.
func longRequest(data []byte) []byte {
	var chunks []any
	for sequence := 1; len(data) > 0 || sequence == 1; sequence++ {
		n := min(len(data), 50000)
		chunks = append(chunks, object{"sequencenumber": sequence, "messageid": 1, "data": data[:n], "endofmsg": n == len(data)})
		data = data[n:]
	}
	return sessionRaw.message(byToken(nil), one(), chunks...)
}

func readLong(t *testing.T, r *recorded, raw []byte) (data []byte, refusal *answerError) {
	t.Helper()
	a, err := readAnswer(raw, r.public(), &sessionRaw, func(answerHeader) (*rawKeys, error) { return &sessionRaw, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range a.chunks {
		data = append(data, c.Data...)
	}
	return data, a.err
}

// TestHalfDuplexHTTP answers a client that writes its whole request before it
// reads, with handlers that answer as they read.
func TestHalfDuplexHTTP(t *testing.T) {
	for name, handle := range racedHandlers() {
		for _, chunked := range []bool{false, true} {
			if chunked && name != "io.Copy" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", name, chunked), func(t *testing.T) {
				r := newRecorded(t)
				size := int64(6 << 20) // more than the buffers of the system hold
				if name == "io.Copy" {
					size = 8 << 20
				}
				data := random(int(scaled(size)))
				got, refusal := readLong(t, r, postAll(t, serveRecorded(t, r, handle), longRequest(data), chunked))
				if name == "write first" {
					data = append(make([]byte, 200000), data...)
				}
				if refusal != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d, %+v", len(got), len(data), refusal)
				}
			})
		}
	}
}

// TestHalfDuplexHTTPTooLong has an answer that grows over the bound before the
// request was read: the client gets an MSL error, and nothing of the answer.
func TestHalfDuplexHTTPTooLong(t *testing.T) {
	r := newRecorded(t)
	r.server.Limits.Held = 100 << 10
	ended := make(chan error, 1)
	address := serveRecorded(t, r, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		err := echo(ctx, w, m)
		ended <- err
		return nil // as one that does not look
	})
	got, refusal := readLong(t, r, postAll(t, address, longRequest(random(int(scaled(8<<20)))), false))
	if refusal == nil || refusal.InternalCode != msl.ErrMSLCommsFailure.Internal() || len(got) > 0 {
		t.Errorf("%d bytes, %+v", len(got), refusal)
	}
	if err := <-ended; !errors.Is(err, msl.ErrMSLCommsFailure) {
		t.Errorf("handler got %v", err)
	}
}

// TestHalfDuplexHTTPUnread answers at length, and flushes, without reading the
// request.
func TestHalfDuplexHTTPUnread(t *testing.T) {
	const mebibyte = 1 << 20
	for _, request := range []int{10, int(scaled(4 * mebibyte))} {
		r := newRecorded(t)
		r.server.Limits.Held = int(scaled(5 * mebibyte))
		address := serveRecorded(t, r, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			for range 8 {
				if _, err := w.Write(make([]byte, scaled(mebibyte))); err != nil {
					return err
				}
			}
			return w.Flush()
		})
		got, refusal := readLong(t, r, postAll(t, address, longRequest(random(request)), false))
		if len(got) != int(scaled(8*mebibyte)) || refusal != nil {
			t.Errorf("request of %d bytes: answer of %d, %+v", request, len(got), refusal)
		}
	}
}

// TestHalfDuplexHTTPFlush flushes to a client that has sent everything, and continues
// when the client has received that.
func TestHalfDuplexHTTPFlush(t *testing.T) {
	r := newRecorded(t)
	arrived := make(chan struct{})
	address := serveRecorded(t, r, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		io.WriteString(w, "wait")
		if err := w.Flush(); err != nil {
			return err
		}
		<-arrived
		return nil
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	message := longRequest([]byte("hello"))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(message), message)
	_, err = conn.Read(make([]byte, 1))
	close(arrived)
	if err != nil {
		t.Error(err)
	}
}
