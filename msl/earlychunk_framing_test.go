package msl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/msl-hsm/msl-hsm/msl"
)

// outcomesOnStream are those of the messages on a connection that lasts.
func (b *faultBench) outcomesOnStream(stream []byte) (all []string) {
	b.refused = nil
	rw := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(stream), io.Discard}
	err := b.server.ServeStream(context.Background(), "test", rw, func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		data, err := io.ReadAll(m.Body)
		all = append(all, fmt.Sprintf("%q, %v", data, err))
		w.Write(data)
		return err
	})
	return append(all, fmt.Sprint(err, b.refused))
}

// Whatever follows a header, or comes instead of one, the verdict is the same with a
// device that is waited for, and nothing is left behind.
func TestEarlyChunkOfOddFraming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, whole := newSlowBench(t)
		at := bytes.LastIndex(whole, []byte(`{"payload"`))
		head, chunk := string(whole[:at]), string(whole[at:])
		huge := `{"x":"` + strings.Repeat("x", 30<<10) + `",` + head[1:]
		for name, message := range map[string]string{
			"no payload":             head,
			"chunk first":            chunk + head,
			"chunk alone":            chunk,
			"chunk twice":            head + chunk + chunk,
			"two messages":           head + chunk + head + chunk,
			"two, first cut off":     head + head + chunk,
			"blanks":                 head + " \n" + chunk + "\n ",
			"empty payload":          head + `{"payload":"","signature":""}`,
			"no signature":           head + `{"payload":"AAAA"}`,
			"not Base64":             head + `{"payload":"\u0000","signature":"%"}` + chunk,
			"payload is a number":    head + `{"payload":1,"signature":2}`,
			"error in between":       head + `{"errordata":"AAAA","signature":"","payload":"AAAA"}`,
			"huge header":            huge + chunk,
			"huge header, no end":    huge[:25<<10],
			"escaped chunk":          head + strings.Replace(chunk, `"payload"`, `"\u0070ayload"`, 1),
			"chunk with escaped end": head + strings.Replace(chunk, `"}`, `\u003d"}`, 1),
			"braces":                 head + "}}" + chunk,
			"array":                  head + "[]" + chunk,
		} {
			b.store.latency = 0
			post, stream := b.outcomeOf([]byte(message)), b.outcomesOnStream([]byte(message))
			b.store.latency = latency
			if got := b.outcomeOf([]byte(message)); fmt.Sprint(got) != fmt.Sprint(post) {
				t.Errorf("%s: %+v, want %+v", name, got, post)
			}
			if got := b.outcomesOnStream([]byte(message)); !slices.Equal(got, stream) {
				t.Errorf("%s on a stream: %q, want %q", name, got, stream)
			}
		}
		b.store.latency = 0
		b.mustSend()
		if unproven, proven := b.server.InUse(); unproven != 0 || proven != 0 {
			t.Errorf("memory in use: %d and %d bytes", unproven, proven)
		}
	})
}
