package serverside

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// pipes is a listener.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// TestUnsentBody has requests that announce a body and do not send all of it. An answer that
// does not depend on the body comes nevertheless; a message may take longer.
func TestUnsentBody(t *testing.T) {
	for _, request := range []string{"GET //x", "GET /", "POST /"} {
		t.Run(request, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, took := unsentBody(t, request)
				if isMessage := request == "POST /"; !isMessage && (answer == nil || took > 11*time.Second) || isMessage && took < 50*time.Second {
					t.Errorf("%v after %v", answer, took)
				}
			})
		})
	}
}

// unsentBody returns the answer, if there is one, and after what time it came.
func unsentBody(t *testing.T, request string) (*http.Response, time.Duration) {
	s := &Service{base: &base{}, MSL: &msl.Server{Issuer: &msl.Issuer{}}}
	handler, err := answers(&config.Config{}, s, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server, l := HTTPServer(&mslhttp.Connections{}, handler, slog.New(slog.DiscardHandler)), make(pipes)
	go server.Serve(l)
	ours, theirs := net.Pipe()
	l <- theirs
	defer func() {
		ours.Close()
		close(l)
		server.Close()
		time.Sleep(time.Minute) // net/http lingers on what it closes
	}()
	began := time.Now()
	if _, err := io.WriteString(ours, request+" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	ours.SetReadDeadline(began.Add(2 * time.Minute))
	answer, _ := http.ReadResponse(bufio.NewReader(ours), nil)
	return answer, time.Since(began)
}
