package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// A Transport posts MSL messages to a URL. It is safe for many goroutines.
type Transport struct {
	URL    string
	Client *http.Client // nil means http.DefaultClient
	// MaxAnswer bounds an answer in bytes; zero means 1 GiB, negative no bound.
	MaxAnswer int64
}

const (
	defaultMaxAnswer = 1 << 30
	bufferSize       = 256 << 10 // a message up to this size is sent with its length
)

// A StatusError is an HTTP status in the place of an MSL answer.
type StatusError struct {
	Status     int
	RetryAfter string // of the response header, may be empty
}

// Error tells the status, and what to do about it.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("mslhttp: server answered HTTP %d %s instead of a message", e.Status, http.StatusText(e.Status))
	if e.Status == http.StatusServiceUnavailable {
		return text + ": it cannot answer now, try again later"
	}
	return text + ": check that the URL is that of an MSL server"
}

// RoundTrip posts what write writes, and returns the body of the answer. It
// closes the answer when ctx ends.
func (t *Transport) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	out := newUpload(write)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", err)
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	if err := out.attach(request); err != nil {
		return nil, err
	}
	client := t.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("mslhttp: %w", errors.Join(err, out.failure()))
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, &StatusError{Status: response.StatusCode, RetryAfter: response.Header.Get("Retry-After")}
	}
	return t.bounded(response.Body), nil
}

func (t *Transport) bounded(body io.ReadCloser) io.ReadCloser {
	size := orDefault(t.MaxAnswer, defaultMaxAnswer)
	if size < 0 {
		return body
	}
	return http.MaxBytesReader(nil, body, size)
}

// An upload sends a short message with its length, so that the connection can be
// kept and the request repeated, and streams a long one.
type upload struct {
	write func(io.Writer) error
	head  bytes.Buffer
	pipe  *io.PipeWriter // set once head is full
	start func(*io.PipeReader)
	done  chan error
}

func newUpload(write func(io.Writer) error) *upload {
	return &upload{write: write, done: make(chan error, 1)}
}

// attach gives the request its body: at once if the message is short.
func (u *upload) attach(request *http.Request) error {
	long := make(chan *io.PipeReader, 1)
	u.start = func(r *io.PipeReader) { long <- r }
	go func() {
		err := u.write(u)
		if u.pipe != nil {
			u.pipe.CloseWithError(err)
		}
		u.done <- err
		close(u.done)
	}()
	select {
	case r := <-long:
		request.Body = r
	case <-request.Context().Done(): // a body that does not come in time
		return request.Context().Err()
	case err := <-u.done:
		select {
		case r := <-long: // it was long and is done already: the reader saw the end
			request.Body = r
			return err
		default:
		}
		if err != nil {
			return err
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
	if u.pipe == nil && u.head.Len()+len(p) <= bufferSize {
		return u.head.Write(p)
	}
	if u.pipe == nil {
		r, w := io.Pipe()
		u.pipe = w
		u.start(r)
		if _, err := w.Write(u.head.Bytes()); err != nil {
			return 0, err
		}
	}
	return u.pipe.Write(p)
}

// failure is why the message could not be written, if that is known.
func (u *upload) failure() error {
	select {
	case err := <-u.done:
		if errors.Is(err, io.ErrClosedPipe) {
			return nil // the transport stopped reading, and says why itself
		}
		return err
	default:
		return nil
	}
}
