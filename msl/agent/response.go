package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A response answers the request with that body.
type response struct {
	http.ResponseWriter
	body  *body
	clock *clock
	plain bool // HTTP/1.0: the end of the connection marks the end of a body without a length
}

// heldPlain is how many bytes of an answer without a length are kept for a program that
// speaks HTTP/1.0, to send them with their length.
const heldPlain = 1 << 20

// held reads an answer for a program that could not distinguish a truncated one from a
// whole one, and sets its length.
func (w *response) held(body io.Reader) (io.Reader, error) {
	if !w.plain || w.Header()["Content-Length"] != nil {
		return body, nil
	}
	data, err := io.ReadAll(io.LimitReader(body, heldPlain+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > heldPlain:
		return nil, &StatusError{Status: http.StatusHTTPVersionNotSupported, Err: fmt.Errorf(
			"the answer has no length and more than %d bytes, and in HTTP/1.0 its end cannot be told from a failure: use HTTP/1.1", heldPlain)}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	return bytes.NewReader(data), nil
}

// relay sends the answer to the program as it arrives. The status is sent with the first
// bytes of the answer, since it may change until then.
func (w *response) relay(answer *msl.Response) (begun bool, err error) {
	body, err := w.held(answer.Body)
	if err != nil {
		return false, err
	}
	return w.copy(body, false, func() {
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		describe(h, answer)
		w.start(http.StatusOK)
	})
}

// copy copies the body of a response. Unless it has begun, it begins with start and the
// first bytes.
func (w *response) copy(body io.Reader, begun bool, start func()) (bool, error) {
	control := http.NewResponseController(w.ResponseWriter)
	for piece := make([]byte, 64<<10); ; {
		n, err := io.ReadAtLeast(body, piece, 1)
		if err != nil && err != io.EOF {
			return begun, err
		}
		if !begun {
			begun = true
			start()
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return begun, err
		}
		w.clock.moved()
		if err == io.EOF {
			return begun, nil
		}
		if err := control.Flush(); err != nil {
			return begun, err
		}
		w.clock.moved()
	}
}

// start sets the status, and reads ahead what the program is still sending.
func (w *response) start(status int) {
	w.body.endsWith(w.Header())
	w.WriteHeader(status)
	w.body.readAhead()
}

// begin is start, and sends the headers.
func (w *response) begin(status int) error {
	w.start(status)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// describe describes the answer in the headers of a response.
func describe(h http.Header, answer *msl.Response) {
	h.Set("Msl-Message-Id", strconv.FormatInt(answer.MessageID, 10))
	if answer.Identity != "" {
		h.Set("Msl-Identity", mslhttp.EncodeName(answer.Identity))
	}
}
