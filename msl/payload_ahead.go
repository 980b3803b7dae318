package msl

import "github.com/msl-hsm/msl-hsm/msl/internal/wire"

// Sealing a chunk takes processor time, or two calls into a device of unknown delay. A
// message of more than one full chunk therefore has two of them sealed concurrently while
// the application writes the next one. The transport does not see this: the writing
// goroutine sends them in order.

// atOnce is how many chunks are sealed concurrently.
const atOnce = 2

// A sealing is a chunk being sealed, or memory for another one.
type sealing struct {
	data []byte // a buffer for another chunk than this one
	mem  wire.Memory
	done chan sealed // receives one result
}

// A sealed chunk is ready to be sent.
type sealed struct {
	object *wire.Encoder // must be freed
	err    error
}

// start starts sealing a chunk of data, which must not change until the chunk is sent. It
// returns a sealing whose buffer is now free.
func (w *payloadWriter) start(data []byte, end bool) (*sealing, error) {
	if err := w.sendAhead(atOnce - 1); err != nil {
		return nil, err
	}
	s := &sealing{done: make(chan sealed, 1)}
	if n := len(w.idle); n > 0 {
		s, w.idle = w.idle[n-1], w.idle[:n-1]
	}
	w.sequence = next(w.sequence)
	c := chunk{sequence: w.sequence, messageID: w.messageID, end: end, data: data}
	w.ahead = append(w.ahead, s)
	go func() {
		object, err := w.seal(&s.mem, c, nil)
		s.done <- sealed{object, err}
	}()
	return s, nil
}

// sendAhead sends started chunks until no more than left remain, and further ones that
// are ready.
func (w *payloadWriter) sendAhead(left int) error {
	for len(w.ahead) > left || len(w.ahead) > 0 && len(w.ahead[0].done) > 0 {
		if err := w.sendFirst(); err != nil {
			return err
		}
	}
	return nil
}

// sendFirst sends the chunk that was started first.
func (w *payloadWriter) sendFirst() error {
	s := w.ahead[0]
	ready := <-s.done
	w.ahead, w.idle = w.ahead[1:], append(w.idle, s)
	if ready.err != nil {
		return ready.err
	}
	defer ready.object.Free()
	_, err := w.out.Write(ready.object.Encoded())
	return err
}

// abandon waits for started chunks that will not be sent: they use keys that are about to
// be released.
func (w *payloadWriter) abandon() {
	for _, s := range w.ahead {
		if ready := <-s.done; ready.object != nil {
			ready.object.Free()
		}
	}
	w.ahead = nil
}
