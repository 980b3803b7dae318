package httpform

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ErrOther means that data is not in this form: it does not begin like it.
var ErrOther = errors.New("httpform: the data does not begin as an HTTP message does")

// A FormError says why data that begins like this form is malformed.
type FormError struct{ Problem string }

// Error gives the problem.
func (e *FormError) Error() string { return "httpform: " + e.Problem }

// IsRequest reports whether data with that beginning is the form of a request. known is
// false if the beginning is a proper prefix of [RequestLine].
func IsRequest(beginning []byte) (is, known bool) {
	if len(beginning) >= len(RequestLine) {
		return string(beginning[:len(RequestLine)]) == RequestLine, true
	}
	return false, !strings.HasPrefix(RequestLine, string(beginning))
}

// DecodeRequest reads the form of a request up to its body. RequestURI and URL are the
// target in origin form, as sent: nothing in it is decoded or cleaned.
//
// The body ends with io.EOF only if the data ends with it; any other error means that it
// is incomplete.
//
// The error is [ErrOther], a [*FormError], io.ErrUnexpectedEOF if the data ends within
// the head, or the error from reading the data.
func DecodeRequest(r io.Reader) (*http.Request, error) {
	in, err := open(r, RequestLine, checkRequestHead)
	if err != nil {
		return nil, err
	}
	request, err := http.ReadRequest(in.Reader)
	if err != nil {
		return nil, &FormError{"not a request: " + err.Error()}
	}
	request.Body, err = bodyOf(in, request.Body, request.Body == http.NoBody)
	return request, err
}

// DecodeResponse is [DecodeRequest] for the response to a request with that method. If
// the response has no body, the data has been read to its end.
func DecodeResponse(r io.Reader, method string) (*http.Response, error) {
	in, err := open(r, ResponseLine, checkResponseHead)
	if err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(in.Reader, &http.Request{Method: method})
	if err != nil {
		return nil, &FormError{"not a response: " + err.Error()}
	}
	if hasBody(response.StatusCode, method) && response.ContentLength < 0 && len(response.TransferEncoding) == 0 {
		return nil, &FormError{"the response does not say where its body ends"}
	}
	none := response.Body == http.NoBody || !hasBody(response.StatusCode, method)
	response.Body, err = bodyOf(in, response.Body, none)
	return response, err
}

// MostHead is how many bytes the head of a message may have. A longer one is neither read
// nor written.
const MostHead = 64 << 10

// A source is the data. It remembers why it could not be read to its end.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// A form is data past its head; the head was checked and is parsed again by net/http.
type form struct {
	*bufio.Reader
	source *source
}

// open reads the first line and the head, and checks the head.
func open(r io.Reader, line string, check func([]byte) error) (*form, error) {
	data := &source{Reader: r}
	in := bufio.NewReader(data)
	for i := range len(line) {
		c, err := in.ReadByte()
		switch {
		case err != nil && err != io.EOF:
			return nil, err
		case err == io.EOF || c != line[i]:
			return nil, ErrOther
		}
	}
	head, err := readHead(in)
	if err == nil {
		err = check(head)
	}
	if err != nil {
		return nil, err
	}
	return &form{bufio.NewReader(io.MultiReader(bytes.NewReader(head), in)), data}, nil
}

// readHead reads up to the empty line that ends a head.
func readHead(in *bufio.Reader) (head []byte, err error) {
	for {
		line, err := in.ReadSlice('\n')
		if len(head)+len(line) > MostHead {
			return nil, &FormError{fmt.Sprintf("the head has more than %d bytes", MostHead)}
		}
		head = append(head, line...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case !bytes.HasSuffix(head, []byte("\r\n")):
			return nil, &FormError{"a line of the head does not end with CR LF"}
		case bytes.HasSuffix(head, []byte("\r\n\r\n")):
			return head, nil
		}
	}
}

// bodyOf returns the body of a message. If there is none, it requires the data to end.
func bodyOf(in *form, body io.ReadCloser, none bool) (io.ReadCloser, error) {
	if none {
		return http.NoBody, in.ended()
	}
	return &strictBody{in: in, body: body}, nil
}

// ended returns nil if there is no more data.
func (in *form) ended() error {
	switch _, err := in.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return &FormError{"there is more data after the end of the message"}
	default:
		return err
	}
}

// A strictBody ends only where the data ends. It returns nothing read before that is
// known: then no reader that counts bytes can mistake a part for the whole.
type strictBody struct {
	in   *form
	body io.Reader
	err  error
}

func (b *strictBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.body.Read(p)
	switch {
	case err == io.EOF:
		if err = b.in.ended(); err == nil {
			err = io.EOF
		}
	case b.in.source.err != nil && err != nil:
		err = b.in.source.err
	case err != nil:
		err = &FormError{"the body is not whole: " + err.Error()}
	}
	if b.err = err; err != nil && err != io.EOF {
		return 0, err
	}
	return n, err
}

func (b *strictBody) Close() error { return nil }
