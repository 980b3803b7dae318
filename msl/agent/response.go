package agent

import (
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
}

// relay passes the answer on as it arrives. The status is sent with the first bytes of
// the answer, since it may still change until then.
func (w *response) relay(answer *msl.Response) (begun bool, err error) {
	return w.copy(answer.Body, false, func() {
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

// start sets the status, and reads ahead what the program still sends.
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

// describe names the answer in the headers of a response.
func describe(h http.Header, answer *msl.Response) {
	h.Set("Msl-Message-Id", strconv.FormatInt(answer.MessageID, 10))
	if answer.Identity != "" {
		h.Set("Msl-Identity", mslhttp.EncodeName(answer.Identity))
	}
}
