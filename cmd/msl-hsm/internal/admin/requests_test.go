package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestNoSocket checks that a state file which a server has open is not taken for one without a
// server while nobody listens at the socket.
func TestNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	server, err := bolt.CreateServer(path)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	for _, want := range []string{"within a few seconds, so try again", "no server runs with the state file"} {
		if _, err := DialServer(c, path); exit.Code(err) != exit.Failure || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		server.Close() // for the second turn
	}
}

// TestMalformedRequest checks that a request of another form is the caller's error.
func TestMalformedRequest(t *testing.T) {
	_, remote := served(t)
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{"/entities", "{", http.StatusBadRequest},
		{"/entities", "", http.StatusBadRequest},
		{"/entities", "[]", http.StatusBadRequest},
		{"/entities", `{"Identity":1}`, http.StatusBadRequest},
		{"/entities", `"` + strings.Repeat("a", maxRequest) + `"`, http.StatusRequestEntityTooLarge},
		{"/users?name=ada", strings.Repeat("a", maxPassword+1), http.StatusBadRequest},
	} {
		answer, err := remote.web.Post("http://server"+c.path, "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var p problem
		if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || answer.StatusCode != c.want || !strings.HasPrefix(p.Error, "request: ") {
			t.Errorf("%s %.20q: %s, %q, %v", c.path, c.body, answer.Status, p.Error, err)
		}
		answer.Body.Close()
	}
}

// TestUnwritten checks that a reader of the output that goes away is not taken for the server.
func TestUnwritten(t *testing.T) {
	path, l := socketBeside(t)
	answering(t, l, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("metrics")) })
	reader, writer := io.Pipe()
	reader.CloseWithError(syscall.EPIPE)
	if err := dialed(t, path).Metrics(writer); err != syscall.EPIPE {
		t.Errorf("%v", err)
	}
}
