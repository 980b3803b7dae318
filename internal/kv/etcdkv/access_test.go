//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// A signer is a key that cannot be read, as one in a key store.
type signer struct{ crypto.Signer }

// An authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	key, der := a.issue(t, "CA")
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

// issue returns a key and its certificate, which an authority without one signs itself.
func (a *authority) issue(t *testing.T, name string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: a.key == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, by := c, crypto.Signer(key)
	if a.key != nil {
		parent, by = a.certificate, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// client returns the settings of a client whose key is only a crypto.Signer.
func (a *authority) client(t *testing.T, roots *x509.CertPool) *tls.Config {
	t.Helper()
	key, der := a.issue(t, "client")
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: signer{key}}}}
}

// files writes what etcd needs, and returns its arguments.
func (a *authority) files(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	key, der := a.issue(t, "etcd")
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return []string{
		"--cert-file", path("cert", "CERTIFICATE", der), "--key-file", path("key", "EC PRIVATE KEY", private),
		"--trusted-ca-file", path("ca", "CERTIFICATE", a.certificate.Raw), "--client-cert-auth",
	}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	secure, plain := etcdtest.Start(t, ca.files(t)...), etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{secure.URL}, TLS: ca.client(t, ca.pool())})
	if err := d.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("a")) }); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		url  string
		tls  *tls.Config
		want string
	}{
		"unknown CA":            {secure.URL, ca.client(t, other.pool()), "configure the CA of etcd"},
		"roots of the system":   {secure.URL, nil, "configure the CA of etcd"},
		"no certificate":        {secure.URL, &tls.Config{RootCAs: ca.pool()}, "client certificate"},
		"unknown certificate":   {secure.URL, other.client(t, ca.pool()), "client certificate"},
		"another name":          {strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), ca.client(t, ca.pool()), "another name"},
		"http to https":         {strings.Replace(secure.URL, "https", "http", 1), nil, "use https"},
		"https to http":         {strings.Replace(plain.URL, "http", "https", 1), ca.client(t, ca.pool()), "use http"},
		"nobody listens":        {"http://127.0.0.1:1", nil, "check that etcd is running"},
		"no such host":          {"http://no-such-host.invalid:2379", nil, "check the name"},
		"TLS, but not for this": {plain.URL, ca.client(t, ca.pool()), "is http: use https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := Open(t.Context(), Config{Endpoints: []string{c.url}, TLS: c.tls, DialTimeout: time.Second}, layout(), OpenOrCreate)
			wantErr(t, err, nil, c.want)
			if time.Since(start) > 5*time.Second {
				t.Errorf("it took %v", time.Since(start))
			}
		})
	}
}

func password(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

// startAuth starts etcd with a user msl, whose password is "secret", for the prefix state/.
func startAuth(t *testing.T, args ...string) *etcdtest.Member {
	t.Helper()
	m := etcdtest.StartDurable(t, append(args, "--bcrypt-cost", "4")...)
	for _, line := range []string{
		"user add root:root", "role add root", "user grant-role root root", "role add msl", "role grant-permission msl --prefix=true readwrite state/",
		"user add msl:secret", "user grant-role msl msl", "auth enable",
	} {
		m.Control(t, strings.Fields(line)...)
	}
	return m
}

func TestPassword(t *testing.T) {
	m := startAuth(t)
	c := Config{Endpoints: []string{m.URL}, Prefix: "state", User: "msl", Password: password("secret"), DialTimeout: 2 * time.Second}
	d := openAt(t, c)
	if err := d.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("a")) }); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Second) // etcd writes its store every 100 ms, and repeats only what is not in it, such as a login
	m.Kill()
	m.Restart(t) // without the token that it gave
	eventually(t, "no change is made after etcd began again", func() bool {
		return d.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("a")) }) == nil
	})
	broken := errors.New("no such file")
	for name, with := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"wrong":   {func(c *Config) { c.Password = password("SECRET") }, `does not accept the user "msl"`},
		"empty":   {func(c *Config) { c.Password = password("") }, "is empty"},
		"none":    {func(c *Config) { c.User, c.Password = "", nil }, "asks for a user"},
		"broken":  {func(c *Config) { c.Password = func(context.Context) ([]byte, error) { return nil, broken } }, "no such file"},
		"rights":  {func(c *Config) { c.Prefix, c.Password = "other", password("secret") }, `"other/"`},
		"clear":   {func(c *Config) { c.Endpoints = []string{"http://192.0.2.1:2379"} }, "in the clear"},
		"no user": {func(c *Config) { c.User = "" }, "needs a password"},
	} {
		changed := c
		with.change(&changed)
		_, err := Open(t.Context(), changed, layout(), OpenOrCreate)
		wantErr(t, err, nil, with.want)
		if err != nil && strings.Contains(strings.ToLower(err.Error()), "secret") {
			t.Errorf("%s: the password is in %v", name, err)
		}
	}
}

// TestTokenExpires has etcd give tokens that live for a second: a follower logs in again
// whenever it has to, and loses nothing.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m := startAuth(t, "--auth-token", "jwt,priv-key="+file+",sign-method=RS256,ttl=1s")
	one := Config{Endpoints: []string{m.URL}, Prefix: "state/one", User: "msl", Password: password("secret")}
	f := follow(t, one, Following{Notice: func(err error) { t.Errorf("it lost etcd, or found it again: %v", err) }})
	other := openAt(t, Config{Endpoints: one.Endpoints, Prefix: "state/two", User: "msl", Password: one.Password})
	for i := range 3 {
		putIn(t, f, "first", "a", fmt.Sprint(i))
		if err := other.Update(t.Context(), func(tx kv.Tx) error { return increment(tx, []byte("a")) }); err != nil {
			t.Error(err)
		}
		if got, err := recall(f, "first", "a"); got != fmt.Sprint(i) || err != nil {
			t.Errorf("the copy has %s: %v", got, err)
		}
		time.Sleep(600 * time.Millisecond)
	}
}

// TestPasswordChanges gives the etcd user another password, and the right to use more keys,
// while a follower runs: it goes on as soon as it can read the new password.
func TestPasswordChanges(t *testing.T) {
	t.Parallel()
	m := startAuth(t)
	var now atomic.Value
	now.Store("secret")
	read := func(context.Context) ([]byte, error) { return []byte(now.Load().(string)), nil }
	f := follow(t, Config{Endpoints: []string{m.URL}, Prefix: "state", User: "msl", Password: read}, Following{})
	m.Control(t, "--user", "root:root", "role", "grant-permission", "msl", "--prefix=true", "read", "elsewhere/")
	putIn(t, f, "first", "a", "1")
	change := exec.Command("etcdctl", "--endpoints", m.URL, "--user", "root:root", "user", "passwd", "msl", "--interactive=false")
	change.Env, change.Stdin = append(os.Environ(), "ETCDCTL_API=3"), strings.NewReader("another")
	if out, err := change.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "the follower does not say that its password is wrong", func() bool {
		err := f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("2")) })
		return err != nil && strings.Contains(err.Error(), `does not accept the user "msl"`)
	})
	now.Store("another")
	eventually(t, "no change is made with the new password", func() bool {
		return f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("3")) }) == nil
	})
	eventually(t, "the copy is not up to date", func() bool { got, err := recall(f, "first", "a"); return got == "3" && err == nil })
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"no endpoint":        {},
		"not a URL":          {Endpoints: []string{"127.0.0.1:2379"}},
		"contains a user":    {Endpoints: []string{"https://a:b@127.0.0.1:2379"}},
		"has a path":         {Endpoints: []string{"https://127.0.0.1:2379/x"}},
		"some endpoints are": {Endpoints: []string{"https://127.0.0.1:2379", "http://127.0.0.1:2379"}},
		"is negative":        {Endpoints: []string{"https://127.0.0.1:2379"}, Timeout: -1},
	} {
		_, err := Open(t.Context(), c, layout(), OpenOrCreate)
		wantErr(t, err, nil, want)
	}
	_, err := Open(t.Context(), Config{Endpoints: []string{"http://127.0.0.1:1"}}, Layout{Tables: []string{"a/b"}}, OpenOrCreate)
	wantErr(t, err, nil, "name of a table")
}
