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
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// begun returns a server with keys, its configuration, and a service behind it.
func begun(t *testing.T) (l *Live, c *config.Config) {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c = config.Default()
	dir := t.TempDir()
	write(t, dir, "passphrase", "for the keys")
	c.Keystore.URI, c.Keystore.PIN = "soft:"+filepath.Join(dir, "keys"), "file:"+filepath.Join(dir, "passphrase")
	c.Server.Identity, c.Server.State.File = "server", "state.db" // which is not opened
	c.Server.Upstream.URL = []mslhttp.Target{{URL: at}}
	store, err := keys.Make(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	rotate(t, c, store, false)
	r, err := Rehearse(c, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.asRead = c.Server.Identity
	quiet := slog.New(slog.DiscardHandler)
	l = &Live{Log: quiet}
	if err := l.Begin(c, r.Service, false, quiet); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.now.Load().stop)
	return l, c
}

// rotate makes the keys of a server, or new versions of them.
func rotate(t *testing.T, c *config.Config, store keys.Store, again bool) {
	t.Helper()
	set, err := keys.KeySet("server", c.Keystore.Prefix)
	if err == nil {
		err = keys.Complete(store, set, again, func(string, keys.Provision, uint32) {})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReloadFails reloads a configuration with a health check that fails, and with an error
// elsewhere: the service behind the server is not checked, and counts as before.
func TestReloadFails(t *testing.T) {
	l, c := begun(t)
	l.Read = func() (*config.Config, error) {
		checked := *c
		checked.Server.Upstream.Check.Path = "/healthz"
		return &checked, nil
	}
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

// TestRetiredAfterReload retires keys after a reload: connections that began before it use and
// accept them no longer either.
func TestRetiredAfterReload(t *testing.T) {
	l, c := begun(t)
	before := l.Service()
	rotate(t, c, before.Store, true)
	after, err := before.renewed(c, l.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer after.retire()
	least := map[string]uint32{}
	for _, of := range rings(after) {
		least[of.labels[1]] = 2
	}
	retire(after, state.Rotation{Least: least})
	for _, s := range []*Service{before, after} {
		for _, of := range rings(s) {
			if all := of.All(); len(all) != 1 || all[0].Version != 2 {
				t.Errorf("%s: %d versions, the first is %d", of.labels[1], len(all), all[0].Version)
			}
		}
	}
}
