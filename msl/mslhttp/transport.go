package mslhttp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// A Transport posts MSL messages to a URL. It is safe for concurrent use.
type Transport struct {
	URL    string
	Client *http.Client // nil means a client with the defaults of net/http
	// MaxAnswer limits an answer, in bytes; zero means 1 GiB, negative no limit.
	MaxAnswer int64
}

const (
	defaultMaxAnswer = 1 << 30
	bufferSize       = 256 << 10 // a message up to this size is sent with its length

	endSize     = 512                    // bytes; the end of an answer is shorter
	endPatience = 250 * time.Millisecond // for that end to come
)

// A client that reads the answer while it sends the request announces it with this
// header. HTTP/1.1 defines none (RFC 9112, section 9.3, leaves this to the client).
const (
	duplexHeader = "Msl-Duplex"
	fullDuplex   = "full"
)

// FullDuplex reports whether the client of a request reads the answer while it sends: in
// HTTP/2, or if it sends the header "Msl-Duplex: full", as a [Transport] does. A large
// answer to any other client can block forever unless its request is read first.
func FullDuplex(r *http.Request) bool {
	return r.ProtoMajor >= 2 || r.Header.Get(duplexHeader) == fullDuplex
}

// A StatusError is an HTTP status received instead of an MSL answer.
type StatusError struct {
	Status     int
	RetryAfter string // of the response header, may be empty
	WantsTLS   bool   // the answer says that the port has TLS, and the request came without
}

// statusError returns the error for a response. It reads the beginning of its body at most.
func statusError(r *http.Response) *StatusError {
	return &StatusError{Status: r.StatusCode, RetryAfter: r.Header.Get("Retry-After"), WantsTLS: wantsTLS(r)}
}

// speaksTLS begins what a server of this package answers to a client without TLS.
const speaksTLS = "This server speaks TLS"

// tellsTLS matches what the servers of Go, nginx and Apache, Tomcat, and this package say. Any
// other answer may mention TLS, such as one about the header of a client certificate.
var tellsTLS = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`HTTP request to an HTTPS server|plain HTTP(?: request was sent)? to (?:HTTPS|an SSL-enabled server) port|host and port requires TLS|` + speaksTLS)
})

// wantsTLS reports whether a server says that a request without TLS came to a port with TLS. There is
// no status for that; they answer 400 and say it in words.
func wantsTLS(r *http.Response) bool {
	if r.StatusCode != http.StatusBadRequest || r.TLS != nil {
		return false
	}
	said := make([]byte, 1024)
	n, _ := r.Body.Read(said)
	return tellsTLS().Match(said[:n])
}

// Error returns the status, and what to do about it.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("mslhttp: server answered HTTP %d %s instead of a message", e.Status, http.StatusText(e.Status))
	if e.WantsTLS {
		return text + ": its port has TLS: write https:// in the URL"
	}
	switch e.Status {
	case http.StatusServiceUnavailable:
		return text + ": it cannot answer now, try again later"
	case http.StatusInternalServerError:
		return text + ": it may have acted on the message, and its log says why there is no answer"
	case http.StatusRequestEntityTooLarge:
		return text + ": the message is longer than it takes at this address; for messages that is server.limits.body in its configuration, and data takes about 2.4 times its size: send less at once, or raise it there"
	}
	return text + ": check that the URL is that of an MSL server"
}

// RoundTrip posts what write writes, and returns the body of the answer, which may arrive
// before everything is written. Closing the body, or the end of ctx, also ends the
// sending.
func (t *Transport) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	u := newUpload(write)
	body, err := t.post(ctx, u)
	if err != nil {
		cancel()
		u.reader.CloseWithError(err)
		return nil, err
	}
	return &answer{ReadCloser: body, ctx: ctx, upload: u, cancel: cancel}, nil
}

func (t *Transport) post(ctx context.Context, u *upload) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", err)
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	request.Header.Set(duplexHeader, fullDuplex)
	if err := u.attach(request); err != nil {
		return nil, err
	}
	response, err := posting(t.Client).Do(request)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", errors.Join(safetext.Brief(err), u.failure()))
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, statusError(response)
	}
	return &message{ReadCloser: t.bounded(response.Body), mediaType: response.Header.Get("Content-Type")}, nil
}

// posting is a client that, unless it has its own redirect policy, follows no redirect that would turn
// the message into a GET or drop TLS.
func posting(own *http.Client) *http.Client {
	client := http.Client{}
	if own != nil {
		client = *own
	}
	if client.CheckRedirect == nil {
		client.CheckRedirect = samePost
	}
	return &client
}

// samePost stops at a redirect that would not repeat the message unchanged, and returns
// it as the answer. It follows a few others.
func samePost(next *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	if next.Method != last.Method || last.URL.Scheme == "https" && next.URL.Scheme != "https" || len(via) > 3 {
		return http.ErrUseLastResponse
	}
	return nil
}

func (t *Transport) bounded(body io.ReadCloser) io.ReadCloser {
	size := cmp.Or(t.MaxAnswer, defaultMaxAnswer)
	if size < 0 {
		return body
	}
	return http.MaxBytesReader(nil, body, size)
}

// An answer is the body of a response, together with the request that may still be being
// sent.
type answer struct {
	io.ReadCloser
	ctx    context.Context
	upload *upload
	cancel context.CancelFunc
}

var errClosed = errors.New("mslhttp: the answer was closed before all of the request was sent")

// Read reads the answer. If it breaks off because the request did, Read returns the
// request's error.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if cause := context.Cause(a.ctx); cause != nil {
		return n, cause
	}
	return n, errors.Join(err, a.upload.failure())
}

// Close ends both directions. If the exchange is over, it waits briefly for the end of
// the HTTP response: the connection can be reused only after that was read.
func (a *answer) Close() error {
	defer a.cancel()
	if a.upload.finished() {
		patience := time.AfterFunc(endPatience, a.cancel)
		defer patience.Stop()
		_, _ = io.CopyN(io.Discard, a.ReadCloser, endSize)
	}
	a.upload.reader.CloseWithError(errClosed)
	return a.ReadCloser.Close()
}

// An upload sends a short message with its length, so that the connection can be kept and
// the request repeated. A long or flushed message is streamed.
type upload struct {
	write func(io.Writer) error
	done  chan struct{}
	err   error // of write, once it has returned

	head      bytes.Buffer
	streaming bool // head was sent through the pipe
	start     chan struct{}
	pipe      *io.PipeWriter
	reader    *io.PipeReader
}

func newUpload(write func(io.Writer) error) *upload {
	u := &upload{write: write, done: make(chan struct{}), start: make(chan struct{})}
	u.reader, u.pipe = io.Pipe()
	return u
}

// attach gives the request its body: immediately if the message is short.
func (u *upload) attach(request *http.Request) error {
	go func() {
		u.err = u.write(u)
		u.pipe.CloseWithError(u.err)
		close(u.done)
	}()
	select {
	case <-u.start:
		request.Body = u.reader
	case <-request.Context().Done(): // the body did not come in time
		return context.Cause(request.Context())
	case <-u.done: // nothing was sent through the pipe, which waits for its reader
		if u.err != nil {
			return u.err
		}
		message := u.head.Bytes()
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(message)), nil }
		request.Body, _ = request.GetBody()
		request.ContentLength = int64(len(message))
	}
	return nil
}

// Write fills the buffer, then the pipe.
func (u *upload) Write(p []byte) (int, error) {
	if !u.streaming {
		if u.head.Len()+len(p) <= bufferSize {
			return u.head.Write(p)
		}
		if err := u.Flush(); err != nil {
			return 0, err
		}
	}
	return u.pipe.Write(p)
}

// Flush starts sending.
func (u *upload) Flush() error {
	if u.streaming {
		return nil
	}
	u.streaming = true
	close(u.start)
	_, err := u.pipe.Write(u.head.Bytes())
	u.head = bytes.Buffer{}
	return err
}

// finished reports whether the whole message was taken.
func (u *upload) finished() bool {
	select {
	case <-u.done:
		return u.err == nil
	default:
		return false
	}
}

// failure returns why the message could not be written, if known.
func (u *upload) failure() error {
	select {
	case <-u.done:
		if errors.Is(u.err, io.ErrClosedPipe) {
			return nil // the transport stopped reading, and itself says why
		}
		return u.err
	default:
		return nil
	}
}
