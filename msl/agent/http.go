package agent

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// atOnce is how many bytes a body of known length may have to be sent in one piece. A
// longer one, and one of unknown length, are sent as they arrive.
const atOnce = 64 << 10

// asHTTP makes the message carry the whole request.
func (m *message) asHTTP(r *http.Request, b *body) error {
	if err := checkHTTP(r); err != nil {
		return err
	}
	form, err := httpform.EncodeRequest(&http.Request{
		Method: r.Method, RequestURI: r.RequestURI, Header: httpform.EndToEnd(r.Header),
		Body: io.NopCloser(b), ContentLength: lengthOf(r),
	})
	if err != nil {
		return &StatusError{Status: http.StatusBadRequest, Err: problem(err)}
	}
	b.form, m.method = form, r.Method
	m.request.Interactive = r.ContentLength < 0 || r.ContentLength > atOnce
	return nil
}

func lengthOf(r *http.Request) int64 {
	if r.Body == http.NoBody {
		return 0
	}
	return r.ContentLength
}

// checkHTTP refuses requests that cannot be carried in a message.
func checkHTTP(r *http.Request) error {
	switch {
	case r.Method == http.MethodConnect || r.URL.Host != "" || !strings.HasPrefix(r.RequestURI, "/"):
		return &StatusError{Status: http.StatusBadRequest, Err: errors.New("the agent is not a proxy: ask it for a path, such as /api")}
	case upgrades(r.Header):
		return &StatusError{Status: http.StatusNotImplemented, Err: errors.New("the agent carries no WebSockets and no other upgrades of a connection")}
	}
	return nil
}

// upgrades reports whether a program wants another protocol on its connection. Programs
// that only offer HTTP/2 continue without it (RFC 9113, section 3.1).
func upgrades(h http.Header) bool {
	for _, value := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(value, ",") {
			if !strings.EqualFold(strings.TrimSpace(protocol), "h2c") {
				return true
			}
		}
	}
	return false
}

// relayHTTP returns the response that an answer carries to the program. It starts once
// the body has begun to arrive, or immediately if nobody knows when it will.
func (w *response) relayHTTP(answer *msl.Response, method string) (begun bool, err error) {
	r, err := httpform.DecodeResponse(answer.Body, method)
	if err != nil {
		return false, err
	}
	describeHTTP(w.Header(), answer, r)
	if w.plain && r.Body != http.NoBody {
		body, err := w.held(r.Body)
		if err != nil {
			return false, err
		}
		return w.copy(body, false, func() { w.start(r.StatusCode) })
	}
	if r.ContentLength < 0 && r.Body != http.NoBody {
		if err := w.begin(r.StatusCode); err != nil {
			return true, err
		}
		return w.copy(r.Body, true, nil)
	}
	return w.copy(r.Body, false, func() { w.start(r.StatusCode) })
}

// problem translates an error of package httpform for people who do not know the format.
func problem(err error) error {
	if form := (*httpform.FormError)(nil); errors.As(err, &form) {
		return errors.New(form.Problem)
	}
	return err
}

// notHTTP says what is wrong with an answer that is not an HTTP response, or whose body
// is incomplete.
func notHTTP(err error) error {
	var form *httpform.FormError
	switch {
	case errors.Is(err, httpform.ErrOther):
		return &StatusError{Status: http.StatusBadGateway, Err: errors.New(
			"the server does not carry HTTP requests: it is an older one or of another kind; set server.http there, or turn client.agent.http off here")}
	case errors.As(err, &form), err == io.ErrUnexpectedEOF:
		return &StatusError{Status: http.StatusBadGateway, Err: fmt.Errorf("the response is not whole or not correct: %w", problem(err))}
	}
	return err
}

// describeHTTP sets the headers of a response from the service, or from the server
// instead.
func describeHTTP(h http.Header, answer *msl.Response, r *http.Response) {
	maps.Copy(h, httpform.EndToEnd(r.Header))
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // nothing is guessed
	}
	if r.ContentLength >= 0 && r.StatusCode != http.StatusNoContent && r.StatusCode != http.StatusNotModified {
		h.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	if r.Header.Get(mslhttp.ErrorHeader) == mslhttp.ErrorOfServer {
		h.Set(mslhttp.ErrorHeader, mslhttp.ErrorOfServer)
	}
	describe(h, answer)
}
