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
	body *body
}

// relay passes the answer on as it arrives. The status is sent with the first bytes of
// the answer, since it may still change until then.
func (w *response) relay(answer *msl.Response) (begun bool, err error) {
	control := http.NewResponseController(w.ResponseWriter)
	for piece := make([]byte, 64<<10); ; {
		n, err := io.ReadAtLeast(answer.Body, piece, 1)
		if err != nil && err != io.EOF {
			return begun, err
		}
		if !begun {
			begun = true
			describe(w.Header(), answer)
			w.body.endsWith(w.Header())
			w.body.readAhead()
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return begun, err
		}
		if err == io.EOF {
			return begun, nil
		}
		if err := control.Flush(); err != nil {
			return begun, err
		}
	}
}

// describe sets the headers of a response with an answer.
func describe(h http.Header, answer *msl.Response) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Msl-Message-Id", strconv.FormatInt(answer.MessageID, 10))
	if answer.Identity != "" {
		h.Set("Msl-Identity", mslhttp.EncodeName(answer.Identity))
	}
}
