package mslhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A brokenBody returns some data, and then an error.
type brokenBody struct {
	io.Reader
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

// TestGatewayAborts has a message that breaks off, and one whose time is up: the
// service sees that its request breaks off, too.
func TestGatewayAborts(t *testing.T) {
	for name, body := range map[string]func(context.Context) io.Reader{
		"too long": func(context.Context) io.Reader {
			return &brokenBody{strings.NewReader(strings.Repeat("x", 100000)), &http.MaxBytesError{Limit: 100000}}
		},
		"late": func(ctx context.Context) io.Reader { return io.MultiReader(strings.NewReader("x"), &silence{ctx}) },
	} {
		t.Run(name, func(t *testing.T) {
			saw := make(chan error, 1)
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				saw <- err
			}))
			defer service.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // which ends reads, too
			defer cancel()
			err := (&Gateway{URL: service.URL, Timeout: time.Minute}).Handle(ctx, &msl.ResponseWriter{}, &msl.Message{Body: body(ctx)})
			if err == nil {
				t.Error("the gateway reports no error")
			}
			select {
			case err := <-saw:
				if err == nil {
					t.Error("the service took a part for the whole")
				}
			case <-time.After(5 * time.Second):
				t.Error("the service waits for the rest")
			}
			var long *http.MaxBytesError
			if name == "too long" && !errors.As(err, &long) {
				t.Errorf("the gateway says %v", err)
			}
		})
	}
}

// A silence returns nothing until its context ends.
type silence struct{ ctx context.Context }

func (s *silence) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
