package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

const (
	// EndpointMemory is how many bytes the messages of an [Endpoint] may use in each of
	// the two parts of memory that package msl has for messages (msl.Limits.Unproven
	// and Proven).
	EndpointMemory = 16 << 20

	// messagesPerSecond is the default limit of messages to an endpoint.
	messagesPerSecond = 100

	// sessions is how many sessions keep their keys in memory: a device needs its own for
	// two messages, and a dropped one is opened again.
	sessions = 1000

	// maxMessage limits a message in its MSL form, and maxWithLog one with an event log.
	maxMessage = 4 * proof.MaxPlain
	maxWithLog = 4 * proof.MaxMessage
)

// EndpointConfig configures an [Endpoint]. Name and Local are required.
type EndpointConfig struct {
	Name  string          // identity of the server
	Local msl.LocalEntity // authenticates the server

	// Limits are those of the server beside the endpoint. The sizes of messages and the
	// memory for them are set by the endpoint.
	Limits  msl.Limits
	Timeout time.Duration                // for a message and its answer, like mslhttp.Handler.Timeout
	Source  func(*http.Request) string   // like mslhttp.Handler.Source
	Log     *slog.Logger                 // nil means none
	Refused func(context.Context, error) // called with the reason when an enrollment failed; may be nil

	// Decided is called for every device that enrolled, and for every message that
	// failed, with the error. The decision is the zero value if the device did not prove
	// its EK. Nil logs it, unless Refused is set.
	Decided func(context.Context, enroll.Decision, error)

	// Key is the HMAC-SHA256 key from which those of the endpoint are derived, so that a
	// device may send each of its messages to a different server with the same key, or
	// after a restart. The authenticated data begins with "msl-hsm tpm enrolment
	// endpoint". Nil means keys that end with the process.
	Key keystore.MAC

	// EventLogs accepts messages of 1 MiB instead of 256 KiB, for the event logs that
	// enroll.Policy.EventLogs asks for.
	EventLogs bool

	// PerSecond limits the messages; zero means 100. An enrollment takes three, and the
	// answer to the first costs an operation with the server's private key.
	PerSecond float64
}

// An Endpoint is an MSL server over HTTP for devices that have no identity yet. It has
// its own keys and tokens, which give no access to the server beside it.
type Endpoint struct {
	http.Handler
	server *msl.Server
	store  *soft.Store
}

// NewEndpoint makes the endpoint of an authority. More messages than PerSecond get HTTP
// 503, those of sources that send most of them first. Close it after its last request.
func NewEndpoint(a *Authority, c EndpointConfig) (*Endpoint, error) {
	store := soft.New()
	issuer, err := temporaryIssuer(store, c.Name, c.Key)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	most := maxMessage
	if c.EventLogs {
		most = maxWithLog
	}
	e := &Endpoint{store: store, server: &msl.Server{
		Name: c.Name, Local: c.Local, Issuer: issuer, State: noState{},
		Peers:        []msl.EntityScheme{&entityauth.Provisioned{Assign: temporaryName}},
		KeyExchanges: []msl.Responder{&keyx.AsymmetricWrapped{Store: store}},
		Limits:       endpointLimits(c.Limits, most), Log: c.Log,
	}}
	perSecond := cmp.Or(c.PerSecond, messagesPerSecond)
	e.Handler = newThrottle(perSecond).before(c.source, &mslhttp.Handler{
		Server: e.server, Handle: answer(a, c), MaxBody: int64(most),
		Timeout: c.Timeout, Log: c.Log, Source: c.Source,
	})
	return e, nil
}

// Close ends the endpoint's sessions and its keys.
func (e *Endpoint) Close() error { return errors.Join(e.server.Close(), e.store.Close()) }

// answer returns a handler that passes messages to the authority.
func answer(a *Authority, c EndpointConfig) msl.Handler {
	return func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		request, err := io.ReadAll(io.LimitReader(m.Body, enroll.MaxMessage+1))
		if err != nil {
			return err
		}
		response, decision, err := a.Decide(ctx, request)
		if err != nil || decision.State != "" {
			c.tell(ctx, decision, err)
		}
		_, err = w.Write(response)
		return err
	}
}

// tell reports what was decided, or logs it.
func (c *EndpointConfig) tell(ctx context.Context, d enroll.Decision, err error) {
	if err != nil && c.Refused != nil {
		c.Refused(ctx, err)
	}
	switch {
	case c.Decided != nil:
		c.Decided(ctx, d, err)
	case c.Refused == nil && c.Log != nil:
		LogDecision(ctx, c.Log, d, err)
	}
}

// LogDecision logs what was decided about a device, or why its message failed. A failure
// that is not the device's is a warning, as is a device that left the policy.
func LogDecision(ctx context.Context, log *slog.Logger, d enroll.Decision, err error) {
	text, level := "device enrolled", slog.LevelInfo
	switch {
	case d.Attests && err == nil && d.Unlogged:
		text, level = "device attests without the event log of its start", slog.LevelWarn
	case d.Attests && err == nil && len(d.Changes) > 0:
		text, level = "device attested and its TPM has changed", slog.LevelWarn
	case d.Attests && err == nil:
		text, level = "device attested", slog.LevelDebug
	case d.Attests:
		text, level = "device attested and is not accepted", slog.LevelWarn
	}
	var attrs []slog.Attr
	if d.State != "" {
		attrs = append(attrs, slog.Any("device", d))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if err != nil && !d.Attests {
		text = "device not enrolled"
	}
	if err != nil && proof.FaultWord(err) == "internal" {
		level = slog.LevelWarn
	}
	log.LogAttrs(ctx, level, text, attrs...)
}

// endpointLimits are for short messages.
func endpointLimits(l msl.Limits, most int) msl.Limits {
	l.Header, l.Chunk, l.Held = maxMessage, most, most
	l.Unproven, l.Proven = EndpointMemory, EndpointMemory
	l.Sessions = sessions
	return l
}

// temporaryIssuer makes an issuer in an otherwise empty store, whose keys are derived
// from a key, or end with the process.
func temporaryIssuer(store *soft.Store, name string, from keystore.MAC) (*msl.Issuer, error) {
	if from != nil {
		for _, role := range keystore.SealingRoles() {
			if _, err := derive(store, from, role.Label(keystore.DefaultPrefix), role.Algorithm(), name); err != nil {
				return nil, err
			}
		}
	}
	encryption, err := derive(store, from, "encryption", keystore.AES128CBC, name)
	if err != nil {
		return nil, err
	}
	mac, err := derive(store, from, "mac", keystore.HMACSHA256, name)
	if err != nil {
		return nil, err
	}
	return &msl.Issuer{Name: name, Store: store, Keys: []msl.IssuerKeys{{
		Version: 1, Encryption: encryption.Key.(keystore.Cipher), MAC: mac.Key.(keystore.MAC),
	}}}, nil
}

// derive makes a key of a server's endpoint, at random if from is nil. It is one step of
// HKDF-Expand (RFC 5869 section 2.3) with that key.
func derive(store *soft.Store, from keystore.MAC, label string, a keystore.Algorithm, server string) (keystore.Version, error) {
	if from == nil {
		return store.Create(label, a)
	}
	raw, err := from.Sum([]byte("msl-hsm tpm enrolment endpoint 1: " + label + "\x00" + server + "\x01"))
	if err != nil {
		return keystore.Version{}, fmt.Errorf("fleet: derive the keys of the endpoint: %w", err)
	}
	defer clear(raw)
	return store.Provision(label, a, raw[:min(len(raw), a.Size())])
}

// noState remembers nothing about the senders, whose number is unlimited: tokens are not
// renewed, and no message is non-replayable.
type noState struct{}

func (noState) Revoked(context.Context, string, string) error { return nil }

func (noState) AcceptID(context.Context, string, int64, int64) error {
	return msl.ErrMessageReplayedUnrecoverable
}

func (noState) Renewable(context.Context, string, int64, int64) error {
	return msl.ErrMasterTokenSequenceNumberOutOfSync
}

func (noState) Renew(context.Context, string, int64, int64) (int64, error) {
	return 0, msl.ErrMasterTokenSequenceNumberOutOfSync
}

// source returns where a request comes from.
func (c *EndpointConfig) source(r *http.Request) string {
	if c.Source != nil {
		return c.Source(r)
	}
	return mslhttp.SourceOf(r.RemoteAddr)
}

// temporaryName names a device that has no name yet.
func temporaryName(context.Context) (string, error) {
	b := make([]byte, 16)
	rand.Read(b)
	return "newcomer-" + hex.EncodeToString(b), nil
}
