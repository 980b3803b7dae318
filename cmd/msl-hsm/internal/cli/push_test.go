package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestPushAfterError posts for a client that is connected and does not wait, since the
// last message on its connection got an error: nobody waits, and that is said at once.
func TestPushAfterError(t *testing.T) {
	for _, peer := range []bool{false, true} {
		ill := false
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ill {
				w.WriteHeader(http.StatusTeapot)
			}
		}))
		defer service.Close()
		url, _ := startServer(t, ", upstream: '"+service.URL+"', push: {path: /push, from: 'unix:push.sock'}, peer: {path: /peer, push: true}")
		c := config.Default()
		c.Client.URL, c.Client.PSK, c.Client.ServerKey, c.Client.Peer = url+"push", "camera.psk", "server.pem", peer
		if peer {
			c.Client.URL = url + "peer"
		}
		client, err := clientside.Open(c, t.Context(), &clientside.Trace{Out: &bytes.Buffer{}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		web := socketClient("push.sock")
		// A message that is posted after the first one would come instead of the second answer.
		for turn, want := range []int{0, http.StatusNotFound, http.StatusOK} {
			ill = want == http.StatusNotFound
			r, err := client.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, Body: msl.BytesBody(nil)})
			if err == nil {
				err = r.Body.Close()
			}
			if (err != nil) != ill {
				t.Fatal(err)
			}
			if want == 0 {
				continue
			}
			begun := time.Now()
			answer, err := web.Post("http://push/camera", "text/plain", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if took := time.Since(begun); answer.StatusCode != want || took > 5*time.Second {
				t.Errorf("peer %v, turn %d: %s after %v", peer, turn, answer.Status, took)
			}
		}
	}
}
