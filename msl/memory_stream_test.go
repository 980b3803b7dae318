package msl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An rw reads from one and writes to the other.
type rw struct {
	io.Reader
	io.Writer
}

// answered reads a message and answers in clear.
func answered(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	if _, err := io.Copy(io.Discard, m.Body); err != nil {
		return err
	}
	w.Encrypted = false
	_, err := w.Write([]byte("read"))
	return err
}

// TestStreamRests has a lasting connection carry a large message, and then nothing: the
// memory of the message becomes free.
func TestStreamRests(t *testing.T) {
	skipWithRace(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		large := pskClient1.message(byPSK("client1"), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 1<<20)}))
		s := newStaller(string(large))
		var out bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- r.server.ServeStream(context.Background(), "x", rw{s, &out}, answered) }()
		synctest.Wait()
		time.Sleep(time.Hour)
		r.checkNothingInUse(t)
		if strings.Contains(out.String(), "errordata") || out.Len() == 0 {
			t.Errorf("answered %s", out.String())
		}
		s.Interrupt()
		<-done
		r.server.Close()
	})
}

// TestStreamOfOneMessage carries the largest message that the memory allows over a
// lasting connection, where it is buffered ahead of its reader.
func TestStreamOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = msl.Limits{ErrorsPerSecond: 1e9, ErrorsPerSource: 1e9, Header: 64 << 10, Chunk: 512 << 10, Held: 1, Unproven: 1, Proven: 1}
		large := pskClient1.message(byPSK("client1"), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 48<<10)}))
		var out bytes.Buffer
		start := time.Now()
		if err := r.server.ServeStream(context.Background(), "x", rw{bytes.NewReader(large), &out}, answered); err != nil {
			t.Error(err)
		}
		if time.Since(start) > 0 || strings.Contains(out.String(), "errordata") || out.Len() == 0 {
			t.Errorf("%s after %v", out.String(), time.Since(start))
		}
		r.server.Close()
	})
}

// TestHeaderStaysCounted reads a message with a large header and small chunks: the memory
// of the header is counted until the message ends.
func TestHeaderStaysCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		var tokens []any
		for i := range 6 {
			tokens = append(tokens, serviceToken(object{"name": fmt.Sprint(i), "servicedata": bytes.Repeat([]byte("x"), 48<<10)}))
		}
		whole := string(pskClient1.message(byPSK("client1"), one(object{"servicetokens": tokens}), with(hello, object{"endofmsg": nil})))
		first := strings.LastIndex(whole, `{"payload"`)
		s := newStaller(whole[:first] + chunksOf(30, 4<<10))
		done := r.started("x", s, func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.Copy(io.Discard, m.Body)
			return err
		})
		synctest.Wait()
		if _, proven := r.server.InUse(); proven < int64(first) {
			t.Errorf("%d bytes are counted for a header of %d", proven, first)
		}
		s.Interrupt()
		<-done
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// chunksOf are n chunks of a message that does not end with them.
func chunksOf(n, size int) (chunks string) {
	for i := range n {
		c := string(pskClient1.message(byPSK("client1"), one(), with(hello, object{"endofmsg": nil, "sequencenumber": i + 1, "data": bytes.Repeat([]byte("y"), size)})))
		chunks += c[strings.LastIndex(c, `{"payload"`):]
	}
	return chunks
}
