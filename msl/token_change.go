package msl

import (
	"errors"
	"io"
)

// A Binding says which tokens a service token belongs to: it is dropped with
// them.
type Binding int

// The bindings of a service token.
const (
	BindNone   Binding = iota // to nothing
	BindEntity                // to the master token
	BindUser                  // to the master token and the user ID token
)

// A TokenChange gives the peer of a message a service token, or deletes it if
// Data is empty. It replaces the token of the same name and binding.
type TokenChange struct {
	Name string
	Data []byte
	Bind Binding

	// Unencrypted signs the token and leaves Data readable, for its holder and for anyone
	// who reads the messages that carry it.
	Unencrypted bool
}

// token makes the service token, bound to tokens of the message that carries it.
func (c TokenChange) token(keys ServiceTokenKeys, random io.Reader, mt *MasterToken, uit *UserIDToken, compression string) (*ServiceToken, error) {
	master, user := int64(Unbound), int64(Unbound)
	if c.Bind != BindNone {
		if mt == nil {
			return nil, fail(ErrResponseRequiresMasterToken, "issue service token", nil)
		}
		master = mt.SerialNumber
	}
	if c.Bind == BindUser {
		if uit == nil {
			return nil, fail(ErrResponseRequiresUserIDToken, "issue service token", nil)
		}
		user = uit.SerialNumber
	}
	key, ok := keys.of(c.Name)
	if !ok && len(c.Data) > 0 {
		return nil, fail(ErrInternalException, "issue service token", errors.New("no keys for a token of that name"))
	}
	return newServiceToken(c, master, user, drawing(key, random), compression)
}
