package msl_test

import (
	"github.com/msl-hsm/msl-hsm/msl"
)

// The rules below say what the protocol allows for each entity scheme and each key
// exchange. They are written from the protocol (MSL wiki, "Entity Authentication",
// "Key Exchange" and "Messages"), and this file uses no code of this package.

// An entityRule is what the protocol says about one entity.
type entityRule struct {
	name, scheme, identity  string
	encrypts, authenticates bool // the fixed properties of the scheme
	wrapping                bool // its identity has a pre-shared wrapping key
}

var plainEntities = []entityRule{
	{"PSK", "PSK", "psk", true, true, true},
	{"PSK_PROFILE", "PSK_PROFILE", "set-p", true, true, true}, // that of its key set
	{"MGK", "MGK", "MODEL-1", true, true, false},
	{"RSA", "RSA", "rsa", false, true, false},
	{"ECC", "ECC", "ecc", false, true, false},
	{"X509 RSA", "X509", "CN=rsa device", false, true, false},
	{"X509 EC", "X509", "CN=ec device", false, true, false},
	{"NONE", "NONE", "none", false, false, false},
	{"NONE_SUFFIXED", "NONE_SUFFIXED", "root.1", false, false, false},
	{"PROVISIONED", "PROVISIONED", "assigned", false, false, false},
}

// entityRules are all entities: the plain ones, and each hidden by a master token,
// which counts as neither encrypting nor authenticating.
func entityRules() []entityRule {
	rules := append([]entityRule{}, plainEntities...)
	for _, e := range plainEntities {
		rules = append(rules, entityRule{"MT_PROTECTED " + e.name, "MT_PROTECTED", e.identity, false, false, e.wrapping})
	}
	return rules
}

// An exchangeRule is what the protocol says about one key exchange.
type exchangeRule struct {
	name, scheme string
	wrapping     bool     // needs a pre-shared wrapping key, or
	refused      msl.Code // is never answered
}

var exchangeRules = []exchangeRule{
	{"SYMMETRIC_WRAPPED PSK", "SYMMETRIC_WRAPPED", true, 0},
	{"SYMMETRIC_WRAPPED SESSION", "SYMMETRIC_WRAPPED", false, msl.ErrKeyXMasterTokenMissing},
	{"SYMMETRIC_WRAPPED unknown", "SYMMETRIC_WRAPPED", false, msl.ErrUnidentifiedKeyXKeyID},
	{"RSA", "ASYMMETRIC_WRAPPED", false, 0},
	{"JWE_RSA", "ASYMMETRIC_WRAPPED", false, 0},
	{"JWEJS_RSA", "ASYMMETRIC_WRAPPED", false, 0},
	{"JWK_RSA", "ASYMMETRIC_WRAPPED", false, 0},
	{"JWK_RSAES", "ASYMMETRIC_WRAPPED", false, 0},
	{"ECC", "ASYMMETRIC_WRAPPED", false, msl.ErrUnsupportedKeyXMechanism},
	{"DIFFIE_HELLMAN", "DIFFIE_HELLMAN", false, 0},
	{"DIFFIE_HELLMAN unknown", "DIFFIE_HELLMAN", false, msl.ErrUnknownKeyXParametersID},
	{"JWE_LADDER PSK", "JWE_LADDER", true, 0},
	{"JWE_LADDER WRAP", "JWE_LADDER", true, 0},
	{"JWE_LADDER WRAP unknown", "JWE_LADDER", false, msl.ErrKeyXWrappingKeyMissing},
	{"JWK_LADDER PSK", "JWK_LADDER", true, 0},
	{"JWK_LADDER WRAP", "JWK_LADDER", true, 0},
	{"JWK_LADDER WRAP unknown", "JWK_LADDER", false, msl.ErrKeyXWrappingKeyMissing},
	{"AUTHENTICATED_DH", "AUTHENTICATED_DH", false, msl.ErrUnidentifiedKeyXScheme},
}

// A demand is what a request asks for.
type demand struct {
	name                     string
	encrypted, authenticated bool
	nonReplayable, user      bool
}

func demands() (all []demand) {
	for _, p := range []demand{{name: "secret", encrypted: true, authenticated: true}, {name: "signed", authenticated: true}, {name: "plain"}} {
		for _, replay := range []string{"", " once"} {
			for _, user := range []string{"", " user"} {
				d := p
				d.name, d.nonReplayable, d.user = p.name+replay+user, replay != "", user != ""
				all = append(all, d)
			}
		}
	}
	return all
}

// A combination is one cell of the matrix.
type combination struct {
	entity   entityRule
	exchange exchangeRule
	demand   demand
}

func combinations() (all []combination) {
	for _, e := range entityRules() {
		for _, x := range exchangeRules {
			for _, d := range demands() {
				all = append(all, combination{e, x, d})
			}
		}
	}
	return all
}

// refused is the code with which the responder refuses the first message, or 0.
// Without a master token each message offers keys, so each is refused. An entity without
// a wrapping key can still ask for one, but cannot have wrapping data.
func (c combination) refused() msl.Code {
	switch {
	case c.exchange.refused != 0:
		return c.exchange.refused
	case c.exchange.wrapping && !c.entity.wrapping && c.climbs():
		return msl.ErrKeyXWrappingKeyMissing
	case c.exchange.wrapping && !c.entity.wrapping:
		return msl.ErrEntityNotFound
	}
	return 0
}

// climbs reports whether the exchange uses the wrapping key of an earlier one.
func (c combination) climbs() bool {
	return c.exchange.name == "JWE_LADDER WRAP" || c.exchange.name == "JWK_LADDER WRAP"
}

// handshake reports whether keys must be exchanged before the data may be sent:
// where the entity's own scheme does not give the protection that is asked for,
// or that a user needs; and always for a non-replayable message, whose id is
// counted for a master token.
func (c combination) handshake() bool {
	e, d := c.entity, c.demand
	return d.encrypted && !e.encrypts || d.authenticated && !e.authenticates ||
		d.nonReplayable || d.user && !(e.encrypts && e.authenticates)
}

// A sight is what the receiver's application sees of a message.
type sight struct {
	Identity, Scheme, User                  string
	Encrypted, Authenticated, NonReplayable bool
	Body                                    string
}

// sights is what it sees of the first and the second message.
func (c combination) sights(user string) (first, second sight) {
	second = sight{Identity: c.entity.identity, Encrypted: true, Authenticated: true,
		NonReplayable: c.demand.nonReplayable, Body: "two"}
	if c.demand.user {
		second.User = user
	}
	first = second
	if first.Body = "one"; !c.handshake() {
		first.Scheme, first.Encrypted, first.Authenticated = c.entity.scheme, c.entity.encrypts, c.entity.authenticates
	}
	return first, second
}
