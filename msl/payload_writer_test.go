package msl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

// A brittle is a protector and a transport, of which one use fails, counted from 1.
type brittle struct {
	Null
	out                             bytes.Buffer
	seals, sends, flushes           atomic.Int32
	failedSeal, failedSend, noFlush int32
}

func (b *brittle) Encrypt(plaintext []byte) ([]byte, error) {
	if b.seals.Add(1) == b.failedSeal {
		return nil, errors.New("device lost")
	}
	return plaintext, nil
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.sends.Add(1) == b.failedSend {
		return 0, errors.New("connection lost")
	}
	return b.out.Write(p)
}

func (b *brittle) Flush() error {
	if b.flushes.Add(1) == b.noFlush {
		return errors.New("connection lost")
	}
	return nil
}

// met reports whether the use came that fails.
func (b *brittle) met() bool {
	reached := func(uses *atomic.Int32, failed int32) bool { return failed > 0 && uses.Load() >= failed }
	return reached(&b.seals, b.failedSeal) || reached(&b.sends, b.failedSend) || reached(&b.flushes, b.noFlush)
}

const aFlush = 0 // instead of a size

// TestMessageFails has each step of writing a message fail once: the call that meets it says so,
// every later one too, and nothing is sent after it.
func TestMessageFails(t *testing.T) {
	for whole, sizes := range map[string][]int{
		" 1 2 3 4 5 6": {aFlush, 5, aFlush, flushSize, aFlush, 2*flushSize + 5, aFlush, aFlush},
		" 1 2 3 4":     {3*flushSize + 5},
	} {
		for _, headed := range []bool{false, true} {
			for _, failing := range []func(int32) *brittle{
				func(at int32) *brittle { return &brittle{failedSeal: at} },
				func(at int32) *brittle { return &brittle{failedSend: at} },
				func(at int32) *brittle { return &brittle{noFlush: at} },
			} {
				for at := int32(1); messageFails(t, failing(at), headed, sizes, whole); at++ {
				}
			}
		}
	}
}

// messageFails writes a message, which has its header yet to send if it is headed, and reports
// whether that failed.
func messageFails(t *testing.T, b *brittle, headed bool, sizes []int, whole string) (failed bool) {
	head := &sealedHeader{who: "entityauthdata", by: []byte("{}"), name: "headerdata"}
	w := &payloadWriter{out: b, protector: b, messageID: 7}
	if headed {
		w.head = &draft{head: head}
	}
	what := fmt.Sprintf("%v, headed %v, sealing %d, sending %d, flushing %d", sizes, headed, b.failedSeal, b.failedSend, b.noFlush)
	failed = writeAll(t, what, w, b, sizes)
	_, numbers, ended := chunks(t, bytes.TrimPrefix(b.out.Bytes(), sent(t, head, headed)))
	if ended == failed || !strings.HasPrefix(whole, numbers) || ended && numbers != whole {
		t.Errorf("%s: failed %v, ended %v, sent%s", what, failed, ended, numbers)
	}
	if b.met() != failed {
		t.Errorf("%s: met %v, and failed %v", what, b.met(), failed)
	}
	return failed
}

func sent(t *testing.T, head *sealedHeader, headed bool) []byte {
	var out bytes.Buffer
	if headed {
		if _, err := head.send(&out); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// writeAll writes a message, and reports whether that failed.
func writeAll(t *testing.T, what string, w *payloadWriter, b *brittle, sizes []int) (failed bool) {
	defer w.abandon()
	for i, size := range append(sizes, -1) {
		before, err := b.out.Len(), error(nil)
		switch size {
		case -1:
			err = w.Close()
		case aFlush:
			if err = w.Flush(); err == nil && len(w.buffer)+len(w.ahead) > 0 {
				t.Errorf("%s: step %d leaves data", what, i)
			}
		default:
			_, err = w.Write(make([]byte, size))
		}
		if failed && (err == nil || b.out.Len() > before) {
			t.Errorf("%s: step %d after a failure: %v, %d bytes", what, i, err, b.out.Len()-before)
		}
		failed = failed || err != nil
	}
	return failed
}

// TestHeaderFails has a header fail that is protected late: no chunk is sent without it.
func TestHeaderFails(t *testing.T) {
	lost := errors.New("device lost")
	full := func(w *payloadWriter) error { _, err := w.Write(make([]byte, flushSize)); return err }
	for name, step := range map[string]func(*payloadWriter) error{"write": full, "flush": (*payloadWriter).Flush, "close": (*payloadWriter).Close} {
		b := new(brittle)
		w := &payloadWriter{out: b, protector: b, head: &draft{err: lost, protect: func() (*sealedHeader, func(), error) { return nil, nil, lost }}}
		for _, step := range []func(*payloadWriter) error{step, full, (*payloadWriter).Flush, (*payloadWriter).Close} {
			if err := step(w); !errors.Is(err, lost) || b.out.Len() > 0 {
				t.Errorf("%s: %v, and %d bytes are sent", name, err, b.out.Len())
			}
		}
	}
}
