package clientside

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A Trace prints what it took to get an answer to a message.
type Trace struct {
	Verbose bool
	Headers bool // also print the headers of messages
	Out     io.Writer

	start time.Time
	token []byte // the master token at the start
	fresh []string
	note  string // printed at the end, verbose or not
}

// Begin records when the request begins.
func (s *Trace) Begin() { s.start = time.Now() }

func (s *Trace) tell(format string, args ...any) {
	if s.Verbose {
		fmt.Fprintf(s.Out, format+"\n", args...)
	}
}

// End prints a summary.
func (s *Trace) End(r *msl.Response) {
	defer s.Remind()
	switch {
	case len(s.fresh) > 0:
		s.tell("master token: new, by key exchange %s", s.fresh[len(s.fresh)-1])
	case r.KeyExchange != "":
		s.tell("master token: new, by key exchange %s", r.KeyExchange)
	case s.token != nil:
		s.tell("master token: re-used, no key exchange")
	default:
		s.tell("master token: none")
	}
	s.tell("%d messages, %s", r.Messages, took(s.start))
}

// Remind prints the notes that were deferred, after the first success.
func (s *Trace) Remind() {
	if s.note != "" {
		fmt.Fprintln(s.Out, s.note)
	}
}

func took(start time.Time) string {
	d := time.Since(start)
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// headers returns a function that prints the headers of messages, or nil.
func (s *Trace) headers() func(msl.HeaderInfo) {
	if !s.Headers {
		return nil
	}
	var one sync.Mutex // an answer may arrive while its request is being sent
	return func(i msl.HeaderInfo) {
		one.Lock()
		defer one.Unlock()
		fmt.Fprintln(s.Out, i)
	}
}

// transport traces every message that t carries.
func (s *Trace) transport(t msl.Transport) msl.Transport { return &tracedTransport{t, s} }

type tracedTransport struct {
	msl.Transport
	story *Trace
}

func (t *tracedTransport) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	start := time.Now()
	count := &countingWriter{}
	body, err := t.Transport.RoundTrip(ctx, func(w io.Writer) error {
		count.w = w
		return write(count)
	})
	if err == nil {
		t.story.tell("sent a message of %d bytes, answered after %s", count.n.Load(), took(start))
	}
	return body, err
}

// A countingWriter may still be written to while its count is read: an answer can
// arrive before its request is completely sent.
type countingWriter struct {
	w io.Writer
	n atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Flush makes a buffering transport send.
func (c *countingWriter) Flush() error {
	if f, ok := c.w.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// state reports each new master token that is stored.
func (s *Trace) state(c msl.ClientState) msl.ClientState { return &tracedState{c, s} }

type tracedState struct {
	msl.ClientState
	story *Trace
}

func (t *tracedState) Load(ctx context.Context) (msl.ClientRecord, error) {
	r, err := t.ClientState.Load(ctx)
	t.story.token = r.MasterToken
	return r, err
}

func (t *tracedState) Save(ctx context.Context, r msl.ClientRecord) error {
	if r.MasterToken != nil && !bytes.Equal(r.MasterToken, t.story.token) {
		t.story.token = r.MasterToken
		t.story.fresh = append(t.story.fresh, r.KeyExchange)
	}
	return t.ClientState.Save(ctx, r)
}

// Explain adds advice to an MSL error.
func Explain(err error, c *config.Config) error {
	var peer *msl.PeerError
	if !errors.As(err, &peer) {
		return Unread(err)
	}
	told := ""
	if peer.User != "" {
		told = fmt.Sprintf("; it tells the user: %q", peer.User)
	}
	return fmt.Errorf("%s refused the message: %w: %s%s", exit.Printable(cmp.Or(peer.Identity, "the server")), refused{peer}, advice(peer, c), told)
}

// Unread explains why an answer could not be read: it is missing, it is not MSL, it
// exceeds a limit, or it is not from the trusted server. For a limit it names the
// setting.
func Unread(err error) error {
	var limit *msl.LimitError
	var long *http.MaxBytesError
	var other *mslhttp.NotMessageError
	switch {
	case exit.Unreached(err):
		return fmt.Errorf("the server cannot be reached: check that it runs, and the URL: %w", err)
	case ofProxy(err):
		return fmt.Errorf("the proxy that HTTP_PROXY names in the environment cannot be used: correct or unset that, or name the server in NO_PROXY: %w", err)
	case exit.UntrustedCertificate(err) && exit.NotValidNow(err):
		return fmt.Errorf("the TLS certificate of the server is not valid by the clock here: check that clock and, if it is right, the certificate and client.tls.roots in the configuration: %w", err)
	case exit.UntrustedCertificate(err):
		return fmt.Errorf("the TLS certificate of the server is not trusted: check the URL, and client.tls.roots and client.tls.server-name in the configuration: %w", err)
	case exit.UntrustedAnswer(err) && exit.NotValidNow(err):
		return fmt.Errorf("the certificate of the server is not valid by the clock here: check that clock and, if it is right, the certificate: %w", err)
	case exit.UntrustedAnswer(err):
		return fmt.Errorf("the server is not the trusted one: compare --recipient and --server-key with its identity and with msl-hsm key show msl-identity --public there: %w", err)
	case errors.Is(err, msl.ErrDecryptNotSupported):
		return fmt.Errorf("the keys here cannot complete the key exchange, so nothing was sent: offer another one with --key-exchange: %w", err)
	case errors.As(err, &other):
		return other // the protocol's own error adds nothing
	case errors.As(err, &limit):
		return fmt.Errorf("%w: raise client.limits.%s in the configuration", err, strings.ToLower(limit.Limit))
	case errors.As(err, &long):
		return fmt.Errorf("the answer is longer than %d bytes: raise client.limits.answer in the configuration: %w", long.Limit, err)
	}
	if text := otherProtocol(err); text != "" {
		return exit.OfKind(err, "%s", text)
	}
	return damaged(err)
}

// ofProxy reports whether a proxy, which net/http uses for http:// URLs, cannot be reached.
func ofProxy(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "proxyconnect"
}

const closedEarly = "the server closed the connection without an answer: try again, and see the server's log"

// otherProtocol explains a server that answered nothing, or in another protocol than the URL says; it
// is empty for anything else. Go has no types for most of these errors.
func otherProtocol(err error) string {
	var there *spoken
	var request *url.Error
	var own *msl.Error
	said := ""
	if errors.As(err, &request) && !request.Timeout() {
		said = request.Err.Error()
	}
	switch {
	case errors.As(err, &there):
		return there.Error()
	case strings.Contains(said, "server gave HTTP response to HTTPS client"):
		return "the server speaks HTTP without TLS there: write http:// in the URL (ws:// instead of wss://), or name the port that has TLS"
	case strings.Contains(said, `malformed HTTP response "\x15\x03`):
		return "that port has TLS: write https:// in the URL (wss:// instead of ws://)"
	case strings.Contains(said, "malformed HTTP"):
		return "what answers there does not speak HTTP: check the URL, and its port"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "what answers there does not speak TLS: check the port; for a server without TLS write http://, ws:// or tcp:// in the URL"
	case said == "" && !errors.As(err, &own): // it may be that of a TPM behind a socket
	case exit.IsAny(err, syscall.ECONNRESET, syscall.EPIPE), said != "" && exit.IsAny(err, io.EOF, io.ErrUnexpectedEOF):
		return closedEarly
	}
	return ""
}

// damaged explains an answer that is not a message, or only part of one.
func damaged(err error) error {
	switch {
	case errors.Is(err, msl.ErrTruncated) && errors.Is(err, msl.ErrNotMessage):
		return fmt.Errorf("the server's answer ends within its header: try again, and check the URL: %w", err)
	case errors.Is(err, msl.ErrNotMessage) && errors.Is(err, io.EOF):
		return fmt.Errorf("the server answered with an empty body, not MSL: check the URL: %w", err)
	case errors.Is(err, msl.ErrNotMessage):
		return fmt.Errorf("the server did not answer with an MSL message: check the URL: %w", err)
	case exit.IsAny(err, msl.ErrTruncated, mslhttp.ErrTLSTruncated):
		return fmt.Errorf("the server's answer ends before its last part: try again, and see the server's log: %w", err)
	case errors.Is(err, msl.ErrMSLParseError):
		return fmt.Errorf("the server's answer is not a whole MSL message: check the URL, and that nothing between changes it: %w", err)
	}
	return err
}

// A refused error prints an MSL error on one line.
type refused struct{ *msl.PeerError }

func (r refused) Unwrap() error { return r.PeerError }

func (r refused) Error() string {
	if r.Code.Name() == "" { // it is the application's own
		return strings.TrimPrefix(r.PeerError.Error(), "msl: peer answered ")
	}
	text := r.Code.Text()
	if r.Message != "" { // which may say more, such as what a service behind the server answered
		text = exit.Printable(r.Message)
	}
	return fmt.Sprintf("%d %s (%s): %s", int(r.Code), r.Code.Name(), r.Response, text)
}

// asMachine reports whether the sender is this machine, with the keys that it enrolled.
func asMachine(c *config.Config) bool {
	own := c.Client
	own.Identity = "" // which enrolling determined
	return strings.HasPrefix(c.Keystore.URI, "tpm:") && own.NamesNobody()
}

// advice returns the next step after an error.
func advice(e *msl.PeerError, c *config.Config) string {
	switch e.Code {
	case msl.ErrEmailPasswordIncorrect, msl.ErrEmailPasswordBlank:
		return "check the e-mail address and the password"
	case msl.ErrEntityNotFound, msl.ErrRSAPublicKeyNotFound, msl.ErrECCPublicKeyNotFound, msl.ErrIncorrectEntityAuthData:
		if asMachine(c) {
			return "the server does not know this key of the machine: run msl-hsm tpm enroll"
		}
		return fmt.Sprintf("register %q on the server with msl-hsm entity add", c.Client.Identity)
	case msl.ErrEntityRevoked, msl.ErrMasterTokenIdentityRevoked:
		if asMachine(c) && c.Client.EntityScheme == "X509" {
			return "if a renewal was not completed, run msl-hsm tpm renew; otherwise the server's operator revoked it"
		}
		return "the server's operator revoked it"
	case msl.ErrUserIDTokenRevoked:
		return "the server's operator revoked it, the user has another password now, or it expired too long ago: log in again"
	case msl.ErrUserAuthEntityIncorrectData, msl.ErrUserAuthEntityUserIncorrectData:
		return "the server permits it by user-rules in its configuration, and by entity add --user-schemes"
	case msl.ErrX509CertExpired:
		return "get a new certificate for this entity; an enrolled device gets one with msl-hsm tpm renew"
	case msl.ErrX509CertNotYetValid:
		return "compare the clock of the server with that of whoever issued the certificate"
	}
	switch e.Response {
	case msl.KeyXRequired:
		return "send it without --no-encryption and --no-integrity"
	case msl.TransientFailure:
		return "try again later"
	case msl.EntityReauth, msl.EntityDataReauth:
		return "check the keys of this entity, and that the server knows them"
	case msl.UserReauth, msl.UserDataReauth, msl.SSOTokenRejected:
		return "check the user and the password"
	}
	return "see the server's log"
}
