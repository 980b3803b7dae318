//go:build linux && cgo && !nopkcs11

package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

const (
	isolatedMemory = 256 << 20       // bytes
	callLimit      = 2 * time.Second // keystore.wait and keystore.call-timeout together

	sessionsOfEntity = 4
)

// twoTokens are a server over two tokens with the same keys, each behind a module that
// misbehaves and in a process of its own, and its devices.
type twoTokens struct {
	*testing.T
	tokens  [2]*softhsm.Token
	modules [2]*hsmtest.Module
	dir     string
	server  *child
	admin   http.Client
	devices []*msl.Client
	ledger  *ledger
}

func newTwoTokens(t *testing.T, devices int) *twoTokens {
	t.Helper()
	b := &twoTokens{T: t, dir: t.TempDir(), ledger: newLedger()}
	b.makeTokens()
	service := httptest.NewServer(b.ledger)
	t.Cleanup(service.Close)
	write(t, b.dir, "c.yaml", fmt.Sprintf(`
keystore:
  pin: %q
  tokens: [%q, %q]
  isolate: true
  isolate-memory: %d
  wait: %v
  call-timeout: %v
server:
  state: s.db
  listen: 127.0.0.1:0
  upstream: %s
`, string(b.tokens[0].PIN), b.uri(0), b.uri(1), isolatedMemory, callLimit/2, callLimit/2, service.URL))
	var keySets []*entityauth.PSKFile
	for i := range devices / sessionsOfEntity {
		keySets = append(keySets, b.register(fmt.Sprintf("camera-%d", i)))
	}
	url := b.serve()
	public := b.publicKey()
	for i := range devices {
		b.devices = append(b.devices, b.device(keySets[i/sessionsOfEntity], public, url))
	}
	return b
}

func (b *twoTokens) uri(i int) string {
	return (&hsm.URI{Token: b.tokens[i].Label, ModulePath: b.modules[i].Path}).String()
}

// in is the same for a part of the test.
func (b *twoTokens) in(t *testing.T) *twoTokens {
	part := *b
	part.T = t
	return &part
}

// makeTokens makes a token with the keys of a server, and its clone.
func (b *twoTokens) makeTokens() {
	b.Helper()
	recovering.Lock()
	defer recovering.Unlock()
	one := softhsm.Temp(b)
	write(b.T, b.dir, "one.yaml", fmt.Sprintf("keystore: {uri: %q, pin: %q}\nserver: {state: s.db}\n", one.URI, string(one.PIN)))
	b.run("key", "create", "--set", "server", "--config", "one.yaml")
	two, err := one.Clone("clone-" + one.Label[:16])
	if err != nil {
		b.Fatal(err)
	}
	b.tokens = [2]*softhsm.Token{one, two}
	for i := range b.modules {
		b.modules[i] = hsmtest.New(b, one.Module)
	}
}

// run does a command that must succeed, and returns what it prints.
func (b *twoTokens) run(args ...string) []byte {
	b.Helper()
	out, err := inProcess(b.dir, args...)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// register makes a device known to the server.
func (b *twoTokens) register(name string) *entityauth.PSKFile {
	b.Helper()
	k := entityauth.NewPSKFile(name, false)
	if err := k.Write(filepath.Join(b.dir, name+".psk")); err != nil {
		b.Fatal(err)
	}
	b.run("entity", "add", name, "--psk-file", name+".psk", "--config", "one.yaml")
	return k
}

func (b *twoTokens) publicKey() crypto.PublicKey {
	b.Helper()
	block, _ := pem.Decode(b.run("key", "show", "msl-identity", "--public", "--config", "one.yaml"))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		b.Fatal(err)
	}
	return public
}

// serve starts the server, and returns its address.
func (b *twoTokens) serve() (url string) {
	b.Helper()
	b.server = launch(b.T, b.dir, "serve", "--config", "c.yaml", "--ready-file", "ready")
	ready := filepath.Join(b.dir, "ready")
	await(b.T, "the server", func() bool { _, err := os.Stat(ready); return err == nil })
	text, err := os.ReadFile(ready)
	if err != nil {
		b.Fatal(err)
	}
	b.admin.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(b.dir, "s.db.sock"))
	}}
	return strings.TrimSpace(string(text))
}

// device makes a client with a session.
func (b *twoTokens) device(k *entityauth.PSKFile, server crypto.PublicKey, url string) *msl.Client {
	b.Helper()
	store := soft.New()
	b.Cleanup(func() { store.Close() })
	set, err := k.KeySet(store, true)
	if err != nil {
		b.Fatal(err)
	}
	peer, err := entityauth.Known("server", server)
	if err != nil {
		b.Fatal(err)
	}
	web := &http.Transport{}
	b.Cleanup(web.CloseIdleConnections)
	c := &msl.Client{
		Local: &entityauth.PSKEntity{Identity: k.Identity, Keys: set}, Peers: []msl.EntityScheme{peer},
		KeyExchanges: []msl.Offerer{&keyx.SymmetricOfferer{Keys: set}},
		Transport:    &mslhttp.Transport{URL: url, Client: &http.Client{Transport: web}},
	}
	b.Cleanup(func() { c.Close() })
	if _, err := sendNumber(b.Context(), c, fmt.Sprintf("hello of device %d", len(b.devices)), true); err != nil {
		b.Fatalf("%v\n%s", err, b.server.stderr.String())
	}
	return c
}

// sendNumber sends a message that must not be processed twice, and reports whether the
// answer ended a key exchange.
func sendNumber(ctx context.Context, c *msl.Client, number string, first bool) (keyExchange bool, err error) {
	r, err := c.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true, RequestTokens: first, Body: msl.BytesBody([]byte(number))})
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err == nil && string(got) != number {
		err = fmt.Errorf("message %s is answered %q", number, got)
	}
	return r.KeyExchange != "", err
}

// send has all devices send numbered messages, one after the other, until end is called.
func (b *twoTokens) send(pause time.Duration) (end func()) {
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for i, c := range b.devices {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began, number := time.Now(), fmt.Sprintf("%d of device %d", n, i)
				keyExchange, err := sendNumber(ctx, c, number, false)
				if ctx.Err() == nil {
					b.ledger.note(b.T, i, number, began, keyExchange, err)
				}
				time.Sleep(pause)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// stop ends the server, which must have kept no key.
func (b *twoTokens) stop() {
	b.Helper()
	b.server.signal(syscall.SIGTERM)
	err := <-b.server.ended
	if err != nil || !strings.Contains(b.server.stderr.String(), "stopped, every key object is closed") {
		b.Errorf("the server ended with %v:\n%s", err, b.server.stderr.String())
	}
}

// usable counts the tokens that the server uses.
func (b *twoTokens) usable() int {
	r, err := b.admin.Get("http://server/metrics")
	if err != nil {
		b.Fatalf("%v\n%s", err, b.server.stderr.String())
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "keystore_token_usable{") && strings.HasSuffix(line, " 1\n") {
			n++
		}
	}
	return n
}
