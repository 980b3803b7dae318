package mslhttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
)

// ErrorHeader is the header field of a response that does not come from the service. Its
// value is [ErrorOfServer] if the server refused a request of package httpform, and
// "agent" if the agent on the device made the response. No service can set it.
const (
	ErrorHeader   = "Msl-Error"
	ErrorOfServer = "server"
)

// An HTTPGateway forwards the HTTP requests that are the data of messages, in the form of
// package httpform, to the service behind a server, and answers with its responses,
// whatever their status. Messages with other data go to Plain. Its method Handle is a
// [msl.Handler]. It is safe for concurrent use. Its fields must not change after the
// first message.
//
// A request that Rules refuses is answered with an HTTP response that has the
// header field [ErrorHeader] and a JSON object with the reason as its body. A request that
// does not state its length is streamed or, if Whole of Upstream is set, read ahead. If the
// service does not answer, the error is that of [Upstream.Do].
type HTTPGateway struct {
	Upstream *Upstream
	Rules    HTTPRules
	Plain    msl.Handler
}

// Handle answers a message.
func (g *HTTPGateway) Handle(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	if !isHTTP(m) {
		return g.Plain(ctx, w, m)
	}
	length, err := g.lengthOf(m)
	if err != nil {
		return answerMalformed(w, err)
	}
	request, err := httpform.DecodeRequest(m.Body)
	if err != nil {
		return answerMalformed(w, err)
	}
	refused := g.Rules.check(request)
	if refused == nil {
		refused = g.setLength(request, length)
	}
	if refused != nil {
		return refused.answer(w, request.Method)
	}
	out := (&http.Request{
		Method: request.Method, URL: request.URL, Header: g.Rules.request(request.Header),
		Body: request.Body, ContentLength: request.ContentLength,
	}).WithContext(ctx)
	response, err := g.Upstream.Do(m, out)
	if err != nil {
		return answerMalformed(w, err)
	}
	defer response.Body.Close()
	if asIs(response.Header) { // by a field that is not forwarded
		w.Uncompressed = true
	}
	response.Header = g.Rules.response(response.Header)
	return answerHTTP(w, response, request.Method)
}

// lengthOf finds the length of the body of a request that does not state it, for a service that reads
// only those that do, or returns -1. Other requests are streamed, since their sender may wait for an
// answer.
func (g *HTTPGateway) lengthOf(m *msl.Message) (int64, error) {
	if !g.Upstream.Whole {
		return -1, nil
	}
	for _, size := range []int{1, cmp.Or(g.Upstream.Buffer, defaultBuffer)} {
		_, all, err := m.ReadAhead(size)
		if err != nil {
			return -1, err
		}
		request, err := httpform.DecodeRequest(m.Ahead())
		switch {
		case err == nil && request.ContentLength >= 0:
			return -1, nil
		case all && err != nil:
			return -1, err
		case all:
			return io.Copy(io.Discard, request.Body)
		}
	}
	return -1, nil
}

// setLength states the length of a request that does not.
func (g *HTTPGateway) setLength(r *http.Request, length int64) *httpRefusal {
	switch {
	case r.ContentLength >= 0 || !g.Upstream.Whole:
		return nil
	case length < 0:
		return &httpRefusal{http.StatusLengthRequired, "the request does not state its length, and is longer than may be read ahead to find it: send Content-Length", ""}
	case length == 0:
		r.Body = http.NoBody
	}
	r.ContentLength = length
	return nil
}

// RefuseHTTP returns a handler for servers that do not accept HTTP requests as the data
// of messages: it answers them with status 501 and the reason why, and passes everything
// else to plain.
func RefuseHTTP(why string, plain msl.Handler) msl.Handler {
	return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		if !isHTTP(m) {
			return plain(ctx, w, m)
		}
		request, err := httpform.DecodeRequest(m.Body)
		if err != nil {
			return answerMalformed(w, err)
		}
		return (&httpRefusal{http.StatusNotImplemented, why, ""}).answer(w, request.Method)
	}
}

// isHTTP reports whether the data of a message is an HTTP request. It reads only as much
// as it needs.
func isHTTP(m *msl.Message) bool {
	for size := 1; ; {
		have, whole, err := m.ReadAhead(size)
		begin := m.Peek(len(httpform.RequestLine))
		is, known := httpform.IsRequest(begin)
		if known || whole || err != nil || have < int64(size) { // an error recurs when the body is read
			return is
		}
		size = int(have) + 1
	}
}

// largeAnswer is the longest answer of known length, in bytes, that is sent in one piece.
// A longer one is sent as it arrives.
const largeAnswer = 64 << 10

func answerHTTP(w *msl.ResponseWriter, r *http.Response, method string) error {
	form, err := httpform.EncodeResponse(r, method)
	if err != nil {
		return told(msl.ErrMSLCommsFailure, textNotHTTP, err)
	}
	data := &http.Response{Header: r.Header, ContentLength: r.ContentLength, Body: io.NopCloser(form)}
	if data.ContentLength > largeAnswer {
		data.ContentLength = -1
	}
	return CopyBody(w, data)
}

const textNotHTTP = "the answer of the service behind the server cannot be passed on"

// answerMalformed answers a request that is malformed or incomplete. Any other error is
// returned.
func answerMalformed(w *msl.ResponseWriter, err error) error {
	var form *httpform.FormError
	if errors.As(err, &form) || err == io.ErrUnexpectedEOF {
		why := strings.TrimPrefix(err.Error(), "httpform: ")
		return (&httpRefusal{http.StatusBadRequest, "the request is not whole or not correct: " + why, ""}).answer(w, http.MethodGet)
	}
	return err
}

// An httpRefusal is why a server does not forward a request.
type httpRefusal struct {
	status int
	why    string
	allow  string // the methods, for status 405
}

func (f *httpRefusal) answer(w *msl.ResponseWriter, method string) error {
	text, err := json.Marshal(map[string]string{"error": "refused by the server: " + f.why})
	if err != nil {
		return err
	}
	h := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}, ErrorHeader: {ErrorOfServer}}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	text = append(text, '\n')
	return answerHTTP(w, &http.Response{StatusCode: f.status, Header: h, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text))}, method)
}
