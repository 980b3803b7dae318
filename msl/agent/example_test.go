package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/agent"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// The programs of a device post to a socket that only their user can connect to:
//
//	curl --unix-socket /run/camera/agent.sock --data-binary @reading.json http://agent/
func Example() {
	const requests = 32
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = requests
	client := &msl.Client{ /* with keys in a TPM */
		Transport: &mslhttp.Transport{URL: "http://127.0.0.1:8080/", Client: &http.Client{Transport: transport}},
	}
	defer client.Close()

	socket, err := net.Listen("unix", "/run/camera/agent.sock") // in a directory of mode 0700
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		Handler: &agent.Handler{
			Client: client, Recipient: "server", Users: []string{"ada@example.com"}, Requests: requests,
			Report: func(_ context.Context, e agent.Exchange) {
				if e.Err != nil {
					slog.Warn("no complete answer", "status", e.Status, "error", e.Err)
				}
			},
		},
	}
	log.Fatal(server.Serve(socket))
}

// Explain gives programs advice on an error, in the terms of the program that contains
// the agent, and may change its status.
func ExampleHandler_explain() {
	h := &agent.Handler{Explain: func(err error) error {
		var user *agent.UserError
		switch {
		case errors.As(err, &user):
			return fmt.Errorf("%w: add them to users.conf", err)
		case errors.Is(err, os.ErrPermission):
			return &agent.StatusError{Status: http.StatusServiceUnavailable, RetryAfter: 60, Err: err}
		}
		return err
	}}
	fmt.Println(h.Explain(&agent.UserError{User: "eve"}))
	// Output: the agent does not send for the user eve: add them to users.conf
}
