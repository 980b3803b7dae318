package httpform

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// The first bytes of the form. The number after msl is the version of the form.
const (
	RequestLine  = "Content-Type: application/http; version=1.1; msgtype=request; msl=1\r\n\r\n"
	ResponseLine = "Content-Type: application/http; version=1.1; msgtype=response; msl=1\r\n\r\n"
)

// EncodeRequest returns the form of a request. Its target is r.RequestURI, or that of
// r.URL if there is none, and the header field Host is r.Host, which may be empty. The
// body is framed by r.ContentLength, or by chunks if that is negative; trailers are left
// out. Each Read of the result reads the body at most once, so data is passed on
// immediately.
//
// An error means that the request cannot have this form, as with a space in its method.
func EncodeRequest(r *http.Request) (io.Reader, error) {
	target := r.RequestURI
	if target == "" {
		target = r.URL.RequestURI()
	}
	if !isToken(r.Method) || !isOriginForm(target) || !isText(r.Host) {
		return nil, &FormError{"the method, target or host has characters that may not be in it"}
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, target, r.Host)
	length := r.ContentLength
	if r.Body == nil || r.Body == http.NoBody {
		length = 0
	}
	writeFields(&head, r.Header)
	if length != 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		writeFraming(&head, length)
	}
	head.WriteString("\r\n")
	if err := checkRequestHead(head.Bytes()); err != nil {
		return nil, err
	}
	return encoded(RequestLine, head.Bytes(), r.Body, length), nil
}

// EncodeResponse returns the form of a response to a request with that method. The body
// is framed by r.ContentLength, or by chunks if that is negative. A response that cannot
// have a body (RFC 9112, section 6.3) has none in its form; the length of one to HEAD is
// kept. Each Read of the result reads the body at most once.
//
// An error means that the response cannot have this form, as with a status below 200.
func EncodeResponse(r *http.Response, method string) (io.Reader, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", r.StatusCode, http.StatusText(r.StatusCode))
	length := r.ContentLength
	writeFields(&head, r.Header)
	switch {
	case method == http.MethodHead && length >= 0:
		writeFraming(&head, length)
	case hasBody(r.StatusCode, method):
		writeFraming(&head, length)
	}
	head.WriteString("\r\n")
	if err := checkResponseHead(head.Bytes()); err != nil {
		return nil, err
	}
	if !hasBody(r.StatusCode, method) {
		length = 0
	}
	return encoded(ResponseLine, head.Bytes(), r.Body, length), nil
}

// hasBody reports whether a response can have a body.
func hasBody(status int, method string) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}

// framing is the header fields that this package writes itself.
var framing = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

func writeFields(head *bytes.Buffer, h http.Header) {
	_ = h.WriteSubset(head, framing) // a Buffer takes everything
}

func writeFraming(head *bytes.Buffer, length int64) {
	if length < 0 {
		head.WriteString("Transfer-Encoding: chunked\r\n")
		return
	}
	head.WriteString("Content-Length: " + strconv.FormatInt(length, 10) + "\r\n")
}

func encoded(line string, head []byte, body io.Reader, length int64) io.Reader {
	start := bytes.NewReader(append([]byte(line), head...))
	switch {
	case length == 0:
		return start
	case length < 0:
		return &joined{start, &chunks{body: body}}
	}
	return &joined{start, &sized{body: body, left: length}}
}

// A joined reader begins with a head, and reads the body only in a separate Read: the
// head must not wait for the body.
type joined struct {
	head *bytes.Reader
	body io.Reader
}

func (j *joined) Read(p []byte) (int, error) {
	if j.head.Len() > 0 {
		return j.head.Read(p)
	}
	return j.body.Read(p)
}

var errLength = errors.New("httpform: the body is longer than its Content-Length")

// A sized body has a known length.
type sized struct {
	body io.Reader
	left int64
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if s.left -= int64(n); s.left < 0 {
		return 0, errLength
	}
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

const (
	sizeLine = "00000000\r\n" // of a chunk
	lastPart = "0\r\n\r\n"    // after all chunks
	leastBuf = 512            // in which a chunk is made, if a Read asks for less
)

// chunks is a body in the chunked coding (RFC 9112, section 7.1), with one chunk for
// each piece that a Read of the body returns.
type chunks struct {
	body io.Reader
	rest []byte // made, but not yet read
	err  error  // after that
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.rest) == 0 && c.err != nil {
		return 0, c.err
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	if len(p) >= leastBuf {
		return c.make(p), nil
	}
	buffer := make([]byte, leastBuf)
	buffer = buffer[:c.make(buffer)]
	n := copy(p, buffer)
	c.rest = append(buffer[n:], c.rest...)
	return n, nil
}

// make reads a piece of the body, and returns the length of its chunk. It appends what
// ends the body.
func (c *chunks) make(p []byte) (n int) {
	var got int
	got, c.err = c.body.Read(p[len(sizeLine) : len(p)-len("\r\n")-len(lastPart)])
	if got > 0 {
		copy(p, fmt.Sprintf("%08x\r\n", got))
		n = len(sizeLine) + got
		n += copy(p[n:], "\r\n")
	}
	if c.err == io.EOF {
		n += copy(p[n:], lastPart)
	}
	return n
}
