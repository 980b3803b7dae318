package msl

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A Sender is who made a message, and what its protection proves.
type Sender struct {
	Identity      string
	Opener        Opener
	Encrypted     bool // what it sends is encrypted
	Authenticated bool // what it sends is from it

	// Proven, if it is not nil, is called when a message of the sender was verified
	// and decrypted: what was opened to read it may be remembered from then on. Not
	// before, since everybody can name a sender.
	Proven func()
}

// An EntityScheme authenticates entities (MSL wiki, "Entity Authentication").
// One value serves both directions: it is our own identity, or it judges a
// peer's. Errors carry a [Code]; make them with [Failure].
type EntityScheme interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Encrypts reports whether a message of this scheme is encrypted.
	Encrypts() bool
	// Authenticates reports whether a message of this scheme is authenticated.
	Authenticates() bool
	// Local is our own entity: the encoded authdata object, its identity, and
	// what protects our messages.
	Local(ctx context.Context) (Local, error)
	// Open judges the authdata object of a peer, with the checks of the scheme
	// in the protocol's order. The caller calls release when it has read the
	// message.
	Open(ctx context.Context, authdata []byte) (s Sender, release func(), err error)
}

// Local is our own entity.
type Local struct {
	Identity  string
	AuthData  []byte
	Protector Protector
	Release   func() // called when the message is written; may be nil
}

// A UserScheme authenticates users of an authenticated entity (MSL wiki, "User
// Authentication").
type UserScheme interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Check judges the form of an authdata object, while a header is read.
	Check(authdata []byte) error
	// Authenticate returns the name of the user of an authdata object that
	// passed Check. It runs after the checks for replay and revocation. A server
	// overwrites authdata when it returns, since it may hold a password: a scheme
	// copies what it keeps.
	Authenticate(ctx context.Context, identity string, authdata []byte) (user string, err error)
}

// UserAuthData is how a client proves its user: a scheme and its encoded
// authdata object.
type UserAuthData struct {
	Scheme   string
	AuthData []byte
}

// A KeyExchange gives both sides of a session its keys (MSL wiki, "Key
// Exchange"). It never sees a token's inside. Key data is an encoded object.
type KeyExchange interface {
	// Scheme is the name on the wire.
	Scheme() string
	// Check judges a request while a header is read.
	Check(keydata []byte) error
	// Exposes declares whether one of the sides has to see key bytes: a
	// server or client whose custody forbids that does without the exchange.
	Exposes(Side) Exposure
	// Respond makes session keys for a requester and tells it of them. The
	// keys must still be open for sealing.
	Respond(ctx context.Context, from Requester, keydata []byte) (*SessionKeys, []byte, error)
	// Offer makes a request of our own.
	Offer(ctx context.Context, from Requester) (Offer, error)
	// Resume makes the keys of an earlier exchange again from what Accept said
	// to keep.
	Resume(ctx context.Context, keep []byte) (*SessionKeys, error)
}

// A Requester is who asks for session keys. Token is nil where it is
// authenticated by its entity authentication data. Custody is the mode of our
// side, and makes the keys.
type Requester struct {
	Identity  string
	Token     *MasterToken
	Custody   Custody
	MessageID int64     // of the message that brings the request
	Time      time.Time // by the issuer's clock, of which a requester has an estimate
}

// An Offer is a request that was made and not yet answered. Close frees what
// an unanswered one holds.
type Offer interface {
	KeyData() []byte
	Accept(ctx context.Context, keydata []byte) (Outcome, error)
	io.Closer
}

// An Outcome is what a requester ends with. Keep is what Resume needs after a
// restart, nil if the session ends with the process; it holds no key in clear.
type Outcome struct {
	Keys *SessionKeys
	Keep []byte
}

// The names of all schemes of the protocol: one that is known but not
// configured is another error than one that nobody knows.
var (
	entitySchemes = []string{"PSK", "PSK_PROFILE", "X509", "RSA", "ECC", "NONE", "NONE_SUFFIXED", "MT_PROTECTED", "PROVISIONED"}
	userSchemes   = []string{"EMAIL_PASSWORD", "USER_ID_TOKEN"}
	keyxSchemes   = []string{"ASYMMETRIC_WRAPPED", "SYMMETRIC_WRAPPED", "DIFFIE_HELLMAN", "JWE_LADDER", "JWK_LADDER"}
)

// pick finds the configured scheme of a name. What is not there is unknown or
// unconfigured.
func pick[S interface{ Scheme() string }](configured []S, name string, known []string, unknown, unconfigured Code) (s S, err error) {
	for _, s := range configured {
		if s.Scheme() == name {
			return s, nil
		}
	}
	if slices.Contains(known, name) {
		return s, fail(unconfigured, "find scheme", nil)
	}
	return s, fail(unknown, "find scheme", nil)
}

// schemeData is the form that authentication data and key requests share: the
// name of a scheme and an object that it reads itself.
type schemeData struct {
	scheme string
	data   []byte
}

func parseSchemeData(o wire.Object, dataName, op string) (schemeData, error) {
	f := wire.FieldsOf(o)
	d := schemeData{scheme: f.String("scheme")}
	d.data = f.Object(dataName).Raw()
	return d, malformed(f, op)
}

func (d schemeData) encode(dataName string) []byte {
	e := wire.NewEncoder(64 + len(d.data))
	e.Begin()
	e.String("scheme", d.scheme)
	e.Raw(dataName, d.data)
	e.End()
	return e.Encoded()
}
