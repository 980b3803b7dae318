//go:debug cryptocustomrand=1

package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/internal/pairtest"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

func TestMain(m *testing.M) {
	if err := pairtest.Install(); err != nil {
		panic(err)
	}
	os.Exit(leaktest.Run(m))
}

// A network is a server that echoes, and an agent on a device known to the server.
type network struct {
	testing.TB
	handler  *Handler // of the agent; its fields may be changed before serve
	messages atomic.Int64
	state    msl.MemoryState // of the server
	answers  *httptest.Server
	gate     *mslhttp.Handler // of the server
	url      string           // of the server

	mu        sync.Mutex
	exchanges []Exchange

	base string // of the agent
	web  *http.Client
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{TB: t}
	store, device := soft.New(), soft.New()
	own := pair[crypto.Signer](t, device, "identity", keystore.RSASign2048, 0)
	server := n.server(store, own)
	t.Cleanup(func() { server.Close(); store.Close() })
	n.gate = &mslhttp.Handler{Server: server, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	}}
	n.answers = &httptest.Server{Listener: porttest.Listen(t, porttest.Address(t)), Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.messages.Add(1)
		n.gate.ServeHTTP(w, r)
	})}}
	n.answers.Start()
	t.Cleanup(n.answers.Close)
	n.url = n.answers.URL
	client := &msl.Client{
		Local:        &entityauth.RSAEntity{Identity: "device", KeyID: "1", Key: own},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: directory{entity("server", server.Local.(*entityauth.RSAEntity).Key)}}},
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: device, KeyPair: pair[keyx.UnwrappingPair](t, device, "wrapping", keystore.RSAUnwrap2048, 1)}},
		Capabilities: &msl.Capabilities{},
		UserAuth: func(_ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
			if reason != 0 {
				return nil, nil
			}
			return userauth.EmailPasswordData(user, []byte("password of ada")), nil
		},
	}
	n.handler = &Handler{Client: client, Recipient: "server", Report: n.report}
	n.sendTo(n.url)
	t.Cleanup(func() { client.Close(); device.Close() })
	return n
}

func (n *network) server(store *soft.Store, device crypto.Signer) *msl.Server {
	n.Helper()
	known := directory{entity("device", device)}
	return &msl.Server{
		Name:         "server",
		Local:        &entityauth.RSAEntity{Identity: "server", KeyID: "1", Key: pair[crypto.Signer](n.TB, store, "identity", keystore.RSASign2048, 2)},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: known}},
		KeyExchanges: []msl.Responder{&keyx.AsymmetricWrapped{Store: store}},
		Users: []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, password []byte) (string, error) {
			if email == "ada@example.com" && string(password) == "password of ada" {
				return "ada", nil
			}
			return "", msl.ErrEmailPasswordIncorrect
		}}},
		Issuer: &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: create[keystore.Cipher](n.TB, store, "issuer-encryption", keystore.AES128CBC),
			MAC:        create[keystore.MAC](n.TB, store, "issuer-mac", keystore.HMACSHA256),
		}}},
		State:  &n.state,
		Limits: msl.Limits{ErrorsPerSecond: 10_000, ErrorsPerSource: 10_000}, // ids that arrive late
	}
}

// pairs are RSA keys that all networks share: making them takes longer than most tests.
var pairs = sync.OnceValue(func() (all [3]*rsa.PrivateKey) {
	for i := range all {
		all[i], _ = rsa.GenerateKey(rand.Reader, 2048) // of a source that never fails
	}
	return all
})

func pair[K any](t testing.TB, store *soft.Store, label string, a keystore.Algorithm, i int) K {
	t.Helper()
	v, err := store.ProvisionKeyPair(label, a, pairs()[i])
	if err != nil {
		t.Fatal(err)
	}
	return v.Key.(K)
}

func create[K any](t testing.TB, store *soft.Store, label string, a keystore.Algorithm) K {
	t.Helper()
	v, err := store.Create(label, a)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key.(K)
}

// A directory knows one entity.
type directory struct{ entity *msl.Entity }

func (d directory) Entity(context.Context, string) (*msl.Entity, error) { return d.entity, nil }

func entity(identity string, key crypto.Signer) *msl.Entity {
	return &msl.Entity{Identity: identity, Scheme: "RSA", KeyID: "1", PublicKey: key.Public().(*rsa.PublicKey)}
}

// sendTo lets the agent send to another server.
func (n *network) sendTo(url string) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	n.handler.Client.Transport = &mslhttp.Transport{URL: url, Client: &http.Client{Transport: transport}}
	n.Cleanup(transport.CloseIdleConnections)
}

func (n *network) report(_ context.Context, e Exchange) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exchanges = append(n.exchanges, e)
}

// reported returns what was reported since the previous call.
func (n *network) reported() []Exchange {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.exchanges
	n.exchanges = nil
	return e
}

// serve starts the agent on the loopback interface.
func (n *network) serve() *network {
	server := httptest.NewServer(n.handler)
	n.base = server.URL + "/"
	n.reach(server, &http.Transport{MaxIdleConnsPerHost: 100})
	return n
}

// serveUnix starts the agent on a socket, and returns its path.
func (n *network) serveUnix() (path string) {
	n.Helper()
	dir, err := os.MkdirTemp("", "agent") // the path of a socket has at most 107 bytes
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		n.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: n.handler}}
	server.Start()
	n.base = "http://agent/"
	n.reach(server, &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }})
	return path
}

func (n *network) reach(server *httptest.Server, transport *http.Transport) {
	n.web = &http.Client{Transport: transport}
	n.Cleanup(server.Close)
	n.Cleanup(transport.CloseIdleConnections)
}

// post sends data, and returns the response and its body.
func (n *network) post(data string, headers ...string) (*http.Response, string) {
	n.Helper()
	return n.do(http.MethodPost, "", strings.NewReader(data), headers...)
}

func (n *network) do(method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	n.Helper()
	r, err := http.NewRequest(method, n.base+path, body)
	if err != nil {
		n.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	response, err := n.web.Do(r)
	if err != nil {
		n.Errorf("%s: %v", method, err)
		return &http.Response{}, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.Errorf("read the response: %v", err)
	}
	return response, string(text)
}

// echoes checks that data comes back.
func (n *network) echoes(data string, headers ...string) {
	n.Helper()
	if r, text := n.post(data, headers...); r.StatusCode != http.StatusOK || text != data {
		n.Errorf("status %d, %d bytes for %d: %.300s", r.StatusCode, len(text), len(data), text)
	}
}

// A wanted is a response without an answer.
type wanted struct {
	status int
	again  bool
	text   string // that its error contains
}

func (w wanted) check(t *testing.T, r *http.Response, text string) {
	t.Helper()
	var body refusal
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&body); err != nil {
		t.Errorf("%q: %v", text, err)
	}
	if r.StatusCode != w.status || (r.Header.Get("Retry-After") != "") != w.again || !strings.Contains(body.Error, w.text) || strings.Contains(body.Error, "\n") {
		t.Errorf("status %d, Retry-After %q, %q: want %+v", r.StatusCode, r.Header.Get("Retry-After"), body.Error, w)
	}
}
