package msl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A Sender is the author of a message, and what the message's protection proves.
type Sender struct {
	Identity      string
	Opener        Opener
	Encrypted     bool // its message is encrypted
	Authenticated bool // its message is integrity-protected, and from Identity

	// Proven, if not nil, is called after a message of the sender was verified and
	// decrypted. Only then may the keys opened for it be remembered, since anyone can
	// name a sender.
	Proven func()
	// Gone, if not nil, is called when the keys opened for the sender no longer exist.
	// They must then not be remembered.
	Gone func()
}

// proven is the identity of the sender, or empty if it is only claimed.
func (s Sender) proven() string {
	if !s.Authenticated {
		return ""
	}
	return s.Identity
}

// A LocalEntity is this side's identity and how it proves itself to peers (MSL wiki,
// "Entity Authentication"). Errors carry a [Code]; make them with [Failure].
type LocalEntity interface {
	// Scheme is the name of the entity authentication scheme on the wire.
	Scheme() string
	// Encrypts reports whether outgoing messages are encrypted.
	Encrypts() bool
	// Authenticates reports whether outgoing messages are authenticated.
	Authenticates() bool
	// Credentials returns what identifies and protects the next message.
	Credentials(ctx context.Context) (Credentials, error)
}

// Credentials identify the sender in one message of a [LocalEntity], and protect it.
type Credentials struct {
	Identity  string
	AuthData  []byte // the encoded authdata object of the scheme
	Protector Protector
	Release   func() // called once the message is written; may be nil
}

// An EntityScheme authenticates the entities that send messages to this side (MSL wiki,
// "Entity Authentication"). Errors carry a [Code]; make them with [Failure].
type EntityScheme interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Open checks the authdata object of a peer, in the protocol's order. The caller
	// calls release after reading the message. A scheme with its own Codes for malformed
	// objects may also have a method Check(authdata []byte) error, as a UserScheme has;
	// it is also called if the rest of the header is malformed.
	Open(ctx context.Context, authdata []byte) (s Sender, release func(), err error)
}

// A UserScheme authenticates users of an authenticated entity (MSL wiki, "User
// Authentication").
type UserScheme interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Check checks the form of an authdata object while a header is read.
	Check(authdata []byte) error
	// Authenticate returns the name of the user of an authdata object that passed
	// Check. It runs after the checks for replay and revocation. When it returns,
	// a server overwrites authdata, which may hold a password, so a scheme must
	// copy what it keeps.
	Authenticate(ctx context.Context, identity string, authdata []byte) (user string, err error)
}

// UserAuthData is a client's proof of its user: a scheme and its encoded authdata
// object, which may contain a password. No verb of package fmt, and no JSON, shows it.
type UserAuthData struct {
	Scheme   string
	AuthData []byte `json:"-"`
}

// Format implements fmt.Formatter.
func (d UserAuthData) Format(w fmt.State, _ rune) {
	io.WriteString(w, "user authentication data of "+d.Scheme)
}

// A Responder is the side of a key exchange that answers a request for session
// keys: it issues the master token (MSL wiki, "Key Exchange"). It never sees the
// inside of a token. Key data is an encoded object.
type Responder interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Exposes declares whether this side has to see key bytes. A server whose custody
	// forbids that treats the exchange as not configured.
	Exposes() Exposure
	// Check checks the form of a request while a header is read. A message whose requests
	// all fail is refused, even if no keys are due; a request that is well-formed but
	// cannot be answered is an error of Respond.
	Check(keydata []byte) error
	// Respond makes session keys for a requester, and the key data that delivers them. It
	// must still be possible to seal the keys.
	Respond(ctx context.Context, from Requester, keydata []byte) (*SessionKeys, []byte, error)
}

// An Offerer is the side of a key exchange that asks for session keys. It never
// sees the inside of a token. Key data is an encoded object.
type Offerer interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Exposes declares whether this side has to see key bytes. A client whose
	// custody forbids that does not offer the exchange.
	Exposes() Exposure
	// Offer makes a request. [errors.ErrUnsupported] means that the available keys could
	// not complete the exchange; nothing is sent then.
	Offer(ctx context.Context, from Requester) (Offer, error)
	// Resume restores the keys of an earlier exchange from the Keep of its [Outcome].
	Resume(ctx context.Context, keep []byte) (*SessionKeys, error)
}

// A Requester is the entity that asks for session keys.
type Requester struct {
	Identity  string
	Token     *MasterToken // nil if entity authentication data identifies it
	Custody   Custody      // of this side, which makes the keys
	MessageID int64        // of the message with the request
	Time      time.Time    // by the issuer's clock, which a requester estimates
}

// An Offer is a request that was made but not yet answered. Close frees the keys that it
// holds.
type Offer interface {
	KeyData() []byte
	Accept(ctx context.Context, keydata []byte) (Outcome, error)
	io.Closer
}

// An Outcome is the result of a key exchange for the requester. Keep is what Resume needs
// after a restart, or nil if the session ends with the process; it contains no key in the
// clear.
type Outcome struct {
	Keys *SessionKeys
	Keep []byte
}

// The names of all schemes of the protocol.
var (
	entitySchemes = []string{"PSK", "PSK_PROFILE", "X509", "RSA", "ECC", "NONE", "NONE_SUFFIXED", "MT_PROTECTED", "PROVISIONED"}
	userSchemes   = []string{"EMAIL_PASSWORD", "USER_ID_TOKEN"}
	keyxSchemes   = []string{"ASYMMETRIC_WRAPPED", "SYMMETRIC_WRAPPED", "DIFFIE_HELLMAN", "JWE_LADDER", "JWK_LADDER"}
)

// pick finds the configured scheme with a name.
func pick[S interface{ Scheme() string }](configured []S, name string, known []string, unknown, unconfigured Code) (s S, err error) {
	for _, s := range configured {
		if s.Scheme() == name {
			return s, nil
		}
	}
	return s, missingScheme(name, known, unknown, unconfigured)
}

// missingScheme returns the error for a scheme that is not configured. Schemes that the
// protocol defines get a different error than unknown ones.
func missingScheme(name string, known []string, unknown, unconfigured Code) error {
	if slices.Contains(known, name) {
		return fail(unconfigured, "find scheme", nil)
	}
	return fail(unknown, "find scheme", nil)
}

// schemeData is the common form of authentication data and key requests: the name of a
// scheme and an object that the scheme reads.
type schemeData struct {
	scheme string
	data   []byte
}

func (d schemeData) equal(e schemeData) bool {
	return d.scheme == e.scheme && bytes.Equal(d.data, e.data)
}

// parseSchemeData reads both. judge judges the name before the data is read, since the
// data of an unknown scheme may be missing.
func parseSchemeData(o wire.Object, dataName, op string, judge func(scheme string) error) (schemeData, error) {
	f := wire.FieldsOf(o)
	d := schemeData{scheme: f.String("scheme")}
	if err := malformed(f, op); err != nil {
		return d, err
	}
	if err := judge(d.scheme); err != nil {
		return d, err
	}
	d.data = bytes.Clone(f.Object(dataName).Raw()) // outlives the object
	return d, malformed(f, op)
}

// findScheme returns a judge of names that finds one of the configured schemes.
func findScheme[S interface{ Scheme() string }](found *S, configured []S, known []string, unknown, unconfigured Code) func(string) error {
	return func(name string) (err error) {
		*found, err = pick(configured, name, known, unknown, unconfigured)
		return err
	}
}

func (d schemeData) encode(dataName string) []byte {
	e := wire.NewEncoder(64 + len(d.data))
	e.Begin()
	e.String("scheme", d.scheme)
	e.Raw(dataName, d.data)
	e.End()
	return e.Encoded()
}

// FindEntityScheme reads an encoded entityauthdata object and returns the scheme that it
// names and the scheme's authdata. Errors are those of a message: a malformed object, an
// unknown scheme, or a known scheme that is not configured.
func FindEntityScheme(configured []EntityScheme, encoded []byte) (EntityScheme, []byte, error) {
	const op = "entity authentication data"
	o, err := wire.Parse(encoded, wire.Limits{})
	if err != nil {
		return nil, nil, fail(ErrMSLParseError, op, err)
	}
	var scheme EntityScheme
	data, err := parseSchemeData(o, "authdata", op, findEntityScheme(&scheme, configured))
	return scheme, data.data, err
}

func findEntityScheme(found *EntityScheme, configured []EntityScheme) func(string) error {
	return findScheme(found, configured, entitySchemes, ErrUnidentifiedEntityAuthScheme, ErrEntityAuthFactoryNotFound)
}

// EncodeEntityData writes an entityauthdata object, as FindEntityScheme reads it.
func EncodeEntityData(scheme string, authdata []byte) []byte {
	return schemeData{scheme: scheme, data: authdata}.encode("authdata")
}
