package serverside

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// TestReloadFails reloads a configuration with a health check that fails, and with an error
// elsewhere: the service behind the server is not checked, and counts as before.
func TestReloadFails(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	dir := t.TempDir()
	write(t, dir, "passphrase", "for the keys")
	c.Keystore.URI, c.Keystore.PIN = "soft:"+filepath.Join(dir, "keys"), "file:"+filepath.Join(dir, "passphrase")
	c.Server.Identity, c.Server.State.File = "server", "state.db" // which is not opened
	c.Server.Upstream.URL = []mslhttp.Target{{URL: at}}
	store, err := keys.Make(c)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	set, err := keys.KeySet("server", c.Keystore.Prefix)
	if err == nil {
		err = keys.Complete(store, set, false, func(string, keys.Provision, uint32) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := Rehearse(c, store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	quiet := slog.New(slog.DiscardHandler)
	checked := *c
	checked.Server.Upstream.Check.Path = "/healthz"
	l := &Live{Log: quiet, Read: func() (*config.Config, error) { again := checked; return &again, nil }}
	r.asRead = c.Server.Identity
	if err := l.Begin(c, r.Service, false, quiet); err != nil {
		t.Fatal(err)
	}
	defer l.now.Load().stop()
	l.insist = true // on TLS, which is not configured
	for range 20 {
		if _, err := l.Reload(); err == nil || !strings.Contains(err.Error(), "server.tls") {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	if found := l.Service().upstream.States()[0]; !found.Tried.IsZero() {
		t.Errorf("checked: %v", found.Err)
	}
}
