package mslhttp

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

type knownEntity msl.Entity

func (k *knownEntity) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if identity != k.Identity {
		return nil, keystore.ErrNotFound
	}
	return (*msl.Entity)(k), nil
}

// A countedSigner counts the operations of an MSL identity key.
type countedSigner struct {
	crypto.Signer
	n atomic.Int64
}

func (c *countedSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.n.Add(1)
	return c.Signer.Sign(random, digest, opts)
}

// An overTLS is an MSL server behind TLS, with a client that both layers trust.
type overTLS struct {
	addr    string
	server  *msl.Server
	state   *msl.MemoryState
	signer  *countedSigner
	client  *msl.Client
	ended   chan error // of each message that the application saw
	alerts  tlsalert.Counter
	refused atomic.Int64 // messages that the server logged as refused
}

func newOverTLS(t *testing.T, a *authority, listen func(*TLSServer, http.Handler) string) *overTLS {
	t.Helper()
	o := &overTLS{ended: make(chan error, 10), state: &msl.MemoryState{}, signer: &countedSigner{Signer: a.newKey("identity", keystore.RSASign2048)}}
	device := a.newKey("device", keystore.RSASign2048)
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	create := func(label string, algorithm keystore.Algorithm) keystore.Key {
		v, err := a.store.Create(label, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		return v.Key
	}
	o.server = &msl.Server{
		Name: "server", Local: &entityauth.RSAEntity{Identity: "server", KeyID: "key", Key: o.signer},
		Peers: []msl.EntityScheme{&entityauth.RSA{Directory: &knownEntity{Identity: "device", Scheme: "RSA", KeyID: "device", PublicKey: device.Public().(*rsa.PublicKey)}}},
		Issuer: &msl.Issuer{Name: "server", Store: a.store, Keys: []msl.IssuerKeys{{Version: 1,
			Encryption: create("encryption", keystore.AES128CBC).(keystore.Cipher), MAC: create("mac", keystore.HMACSHA256).(keystore.MAC)}}},
		KeyExchanges: []msl.Responder{&keyx.AsymmetricWrapped{Store: a.store}}, State: o.state, Log: slog.New(o),
	}
	t.Cleanup(func() { o.server.Close() })
	o.addr = listen(&TLSServer{Certificates: []TLSCertificate{a.issue("server", keystore.ECDSAP256, nil)}, Alerts: &o.alerts},
		&Handler{Server: o.server, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			_, err := io.Copy(w, m.Body)
			o.ended <- err
			return err
		}})
	o.client = &msl.Client{
		Local:        &entityauth.RSAEntity{Identity: "device", KeyID: "device", Key: device},
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: &knownEntity{Identity: "server", Scheme: "RSA", KeyID: "key", PublicKey: o.signer.Public().(*rsa.PublicKey)}}},
	}
	t.Cleanup(func() { o.client.Close() })
	return o
}

// An overTLS is also the handler of the server's log.
func (o *overTLS) Enabled(context.Context, slog.Level) bool { return true }
func (o *overTLS) WithAttrs([]slog.Attr) slog.Handler       { return o }
func (o *overTLS) WithGroup(string) slog.Handler            { return o }
func (o *overTLS) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "message refused" {
		o.refused.Add(1)
	}
	return nil
}

func (o *overTLS) use(t *testing.T, c *TLSClient) {
	t.Helper()
	c.ServerName = "server"
	transport, err := c.Transport()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	o.client.Transport = &Transport{URL: "https://" + o.addr + "/", Client: &http.Client{Transport: transport}}
}

func (o *overTLS) send(ctx context.Context, text string) (string, int, error) {
	response, err := o.client.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte(text))})
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return string(answer), response.Messages, err
}

// TestMSLOverTLS keeps the tokens of a client through failures of TLS, which are
// never taken for answers about them.
func TestMSLOverTLS(t *testing.T) {
	a := newAuthority(t)
	o := newOverTLS(t, a, func(s *TLSServer, h http.Handler) string { return startHandler(t, s, h) })
	o.use(t, &TLSClient{Roots: a.pool()})
	if got, _, err := o.send(t.Context(), "one"); got != "one" || err != nil {
		t.Fatalf("got %q, error %v", got, err)
	}
	o.use(t, &TLSClient{Roots: newAuthority(t).pool()})
	_, _, err := o.send(t.Context(), "two")
	alert, origin, found := tlsalert.From(err)
	var code msl.Code
	if alert != tlsalert.BadCertificate || origin != tlsalert.Sent || !found || errors.As(err, &code) {
		t.Errorf("got %v", err)
	}
	if class := Classify(err); class.Name != "tls_alert_sent" || class.Blames || class.MSL {
		t.Errorf("class %+v", class)
	}
	o.use(t, &TLSClient{Roots: a.pool()})
	signed := o.signer.n.Load()
	if got, messages, err := o.send(t.Context(), "three"); got != "three" || err != nil || messages != 2 {
		t.Errorf("got %q after %d messages, error %v", got, messages, err)
	}
	if o.signer.n.Load() != signed {
		t.Error("the client lost its master token: the server authenticated itself again")
	}
}

// TestAlertInsideMessage ends a connection in the middle of a message: no answer is
// signed, and nothing is said about the message.
func TestAlertInsideMessage(t *testing.T) {
	for _, test := range []struct {
		name, body string
	}{
		{"in the header", `{"entityauthdata":{"scheme":"NONE","authdata":{"identity":"x"}},"headerdata":"`},
		{"before the header", ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys := &tlsalerttest.Keys{}
			served := make(chan struct{})
			o := newOverTLS(t, newAuthority(t), func(s *TLSServer, h http.Handler) string {
				return startLogged(t, s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(served)
					h.ServeHTTP(w, r)
				}), keys)
			})
			w := &tlsalerttest.Wire{Keys: keys, At: tlsalerttest.AfterHandshake}
			raw, err := w.Dial(o.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			defer raw.Close()
			c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
			// One record, so that the next number is known.
			if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 1000\r\n\r\n%s", test.body); err != nil {
				t.Fatal(err)
			}
			for w.Passed() < 4 { // hello, change_cipher_spec, Finished, request
				time.Sleep(time.Millisecond)
			}
			if err := w.Inject(tlsalert.FatalByte, byte(tlsalert.AccessDenied), 1); err != nil {
				t.Fatal(err)
			}
			<-w.Left()
			<-served
			if counts := o.alerts.Counts(); len(counts) != 1 || counts[0].Alert != tlsalert.AccessDenied {
				t.Errorf("counted %v", counts)
			}
			if n := o.signer.n.Load(); n != 0 {
				t.Errorf("%d signatures for a peer that is gone", n)
			}
			if n := o.refused.Load(); n != 0 {
				t.Errorf("%d messages refused: a failure of TLS became one of MSL", n)
			}
			if len(o.ended) > 0 {
				t.Error("the application heard of a message")
			}
		})
	}
}

// TestFailureClasses compares the table with what a handler answers.
func TestFailureClasses(t *testing.T) {
	received := &tlsalert.Error{Alert: tlsalert.CertificateRevoked, Origin: tlsalert.Received}
	sent := &tlsalert.Error{Alert: tlsalert.BadCertificate, Origin: tlsalert.Sent}
	for _, test := range []struct {
		err  error
		want string
	}{
		{received, "tls_alert_received"},
		{msl.Failure(msl.ErrMSLCommsFailure, "read message", received), "tls_alert_received"},
		{msl.Failure(msl.ErrEntityNotFound, "x", sent), "tls_alert_sent"},
		{fmt.Errorf("post: %w", sent), "tls_alert_sent"},
		{&tlsalert.Error{Alert: tlsalert.InternalError, Origin: tlsalert.Sent, Err: keystore.ErrUnavailable}, "tls_key"},
		{fmt.Errorf("x: %w", ErrTLSTruncated), "tls_truncated"},
		{io.ErrUnexpectedEOF, "connection"},
		{msl.Failure(msl.ErrMSLCommsFailure, "read message", &net.OpError{Op: "read", Err: errors.New("reset")}), "connection"},
		{msl.Failure(msl.ErrMasterTokenUntrusted, "x", keystore.ErrBusy), "device"},
		{keystore.ErrLost, "device"},
		{&msl.PeerError{Code: msl.ErrEntityNotFound}, "peer_error"},
		{msl.ErrTruncated, "message_truncated"},
		{fmt.Errorf("x: %w", &msl.AppError{Err: keystore.ErrBusy}), "application"},
		{&msl.AppError{Err: msl.ErrTruncated}, "message_truncated"},
		{msl.ErrNoAnswer, "no_answer"},
		{msl.ErrMasterTokenUntrusted, "credentials"},
		{msl.Failure(msl.ErrMSLParseError, "x", nil), "message"},
		{errors.New("x"), "internal"},
	} {
		class := Classify(test.err)
		if class.Name != test.want {
			t.Errorf("%v: %s, want %s", test.err, class.Name, test.want)
		}
		if tlsClass := strings.HasPrefix(class.Name, "tls_"); tlsClass && (class.MSL || class.Blames || class.Status != 0) {
			t.Errorf("%s answers in MSL: %+v", class.Name, class)
		}
		if class.Status == 0 || class.MSL {
			continue
		}
		w := httptest.NewRecorder()
		(&Handler{}).unavailable(w, httptest.NewRequest("POST", "/", nil), test.err)
		if w.Code != class.Status {
			t.Errorf("%s: the handler answers %d, the table %d", class.Name, w.Code, class.Status)
		}
	}
}
