package mslhttp

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

const (
	copySize    = 32 << 10             // bytes read at a time
	leastCopy   = 4 << 10              // of a short answer, which may follow the head
	streamPause = 5 * time.Millisecond // for which a stream may pause before the data is sent
)

// CopyBody sends the body of a response as the answer to a message, or as the rest of it.
// A body of unknown length is a stream: data is sent when the stream pauses, and
// server-sent events immediately. A response with Cache-Control: no-transform (RFC 9111,
// section 5.2.2.6) or with Msl-No-Compression: true is sent uncompressed. CopyBody does
// not close the body.
func CopyBody(w *msl.ResponseWriter, r *http.Response) error {
	if asIs(r.Header) {
		w.Uncompressed = true
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "text/event-stream" {
		return copyEvents(w, r.Body)
	}
	if r.ContentLength >= 0 {
		_, err := io.CopyBuffer(w, r.Body, make([]byte, min(max(r.ContentLength+1, leastCopy), copySize)))
		return err
	}
	s := &pausing{w: w}
	defer s.end()
	_, err := io.Copy(s, r.Body)
	return err
}

// asIs reports whether a response must not be compressed.
func asIs(h http.Header) bool {
	if strings.EqualFold(h.Get("Msl-No-Compression"), "true") {
		return true
	}
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-transform") {
			return true
		}
	}
	return false
}

// copyEvents sends everything immediately, beginning with the header.
func copyEvents(w *msl.ResponseWriter, body io.Reader) error {
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.Copy(&flushing{w}, body)
	return err
}

type flushing struct{ w *msl.ResponseWriter }

func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.w.Flush()
	}
	return n, err
}

// A pausing writer flushes when nothing was written for a moment.
type pausing struct {
	mu    sync.Mutex
	w     *msl.ResponseWriter
	timer *time.Timer
	ended bool
	err   error // of a flush
}

func (p *pausing) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(data)
	if p.timer == nil {
		p.timer = time.AfterFunc(streamPause, p.flush)
	} else {
		p.timer.Reset(streamPause)
	}
	return n, err
}

func (p *pausing) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && p.err == nil {
		p.err = p.w.Flush()
	}
}

func (p *pausing) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended = true; p.timer != nil {
		p.timer.Stop()
	}
}
