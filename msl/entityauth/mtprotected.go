package entityauth

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// MTProtectedEntity is an entity hidden from onlookers by the session keys of a master
// token (MSL wiki, "Master Token Protected").
type MTProtectedEntity struct {
	Hidden msl.LocalEntity
	// Token and Keys hide it. HeldTokens of a client returns both.
	Token *msl.MasterToken
	Keys  *msl.SessionKeys
	Rand  io.Reader // for initialization vectors; nil means crypto/rand
}

// Scheme returns MT_PROTECTED.
func (*MTProtectedEntity) Scheme() string { return "MT_PROTECTED" }

// Encrypts reports false.
func (*MTProtectedEntity) Encrypts() bool { return false }

// Authenticates reports false.
func (*MTProtectedEntity) Authenticates() bool { return false }

// Credentials hides this side's entity.
func (m *MTProtectedEntity) Credentials(ctx context.Context) (msl.Credentials, error) {
	if m.Hidden == nil || m.Token == nil || m.Keys == nil {
		return msl.Credentials{}, msl.Failure(msl.ErrEntityAuthMasterTokenNotDecrypted, "own entity", errors.New("no entity to hide, or no master token to hide it"))
	}
	c, err := m.Hidden.Credentials(ctx)
	if err != nil {
		return c, err
	}
	c.AuthData, err = m.hide(c.Identity, msl.EncodeEntityData(m.Hidden.Scheme(), c.AuthData))
	if err != nil && c.Release != nil {
		c.Release()
	}
	return c, err
}

// hide encrypts and signs entity authentication data.
func (m *MTProtectedEntity) hide(identity string, inner []byte) ([]byte, error) {
	if !m.Keys.Acquire() {
		return nil, msl.Failure(msl.ErrEntityAuthMasterTokenNotDecrypted, "own entity", errors.New("the master token's keys are gone"))
	}
	defer m.Keys.Release()
	key := sessionKey(m.Keys)
	key.Rand = m.Rand
	key.KeyID = fmt.Sprintf("%s_%d", identity, m.Token.SequenceNumber)
	data, err := key.Encrypt(inner)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(data)
	if err != nil {
		return nil, err
	}
	e := wire.NewEncoder(128 + len(m.Token.Bytes()) + (len(data)+len(signature))*4/3)
	e.Begin()
	e.Raw("mastertoken", m.Token.Bytes())
	e.Bytes("authdata", data)
	e.Bytes("signature", signature)
	e.End()
	return e.Encoded(), nil
}

// MTProtected is the scheme MT_PROTECTED (MSL wiki, "Master Token Protected"):
// the authentication data of another scheme, hidden from onlookers by the session
// keys of a master token. A receiver must be able to open the token.
//
// The protocol counts the scheme as neither encrypting nor authenticating, whatever the
// hidden scheme does: an entity must exchange keys before it may send user authentication
// data. The master token need not belong to the hidden entity, and may have expired.
type MTProtected struct {
	// Tokens opens the master tokens of peers: it is a Server's
	// OpenMasterToken, or an Issuer's Open.
	Tokens func(*msl.MasterToken) (*msl.Session, error)
	// Inner judges the entities that peers hide.
	Inner []msl.EntityScheme
	// Directory may revoke peers, or restrict them to another scheme: an entity
	// registered for MT_PROTECTED or for the scheme that it hides may use this one. They
	// need no entry here; the inner schemes look them up by their own rules.
	Directory msl.Directory
}

// Scheme returns MT_PROTECTED.
func (*MTProtected) Scheme() string { return "MT_PROTECTED" }

// Open authenticates the entity that a peer hides. A malformed master token is error
// 4036, one that cannot be opened here 4032, and a wrong signature 4035. Then come the
// errors of the hidden scheme, or 4001 if it is not among Inner. Last, according to this
// side's directory, a revoked entity is 4025 and one of another scheme 4006.
func (m *MTProtected) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	hidden, err := parseHidden(authdata)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	inner, err := m.reveal(hidden)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	scheme, data, err := msl.FindEntityScheme(m.Inner, inner)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	sender, release, err := scheme.Open(ctx, data)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	if err := m.permit(ctx, sender.Identity, scheme.Scheme()); err != nil {
		release()
		return msl.Sender{}, nil, err
	}
	sender.Encrypted, sender.Authenticated = false, false
	return sender, release, nil
}

// Check checks the form of authdata: a malformed master token is error 4036.
func (*MTProtected) Check(authdata []byte) error {
	_, err := parseHidden(authdata)
	return err
}

// A hiddenEntity is the authdata object of the scheme.
type hiddenEntity struct {
	token           *msl.MasterToken
	data, signature []byte
}

func parseHidden(authdata []byte) (hiddenEntity, error) {
	f := wire.ParseFields(authdata)
	token, data, signature := f.Object("mastertoken"), f.Bytes("authdata"), f.Bytes("signature")
	if err := malformed(f); err != nil {
		return hiddenEntity{}, err
	}
	mt, err := msl.ParseMasterToken(token.Raw())
	if err != nil {
		return hiddenEntity{}, msl.Failure(msl.ErrEntityAuthMasterTokenInvalid, "entity authentication data", err)
	}
	return hiddenEntity{mt, data, signature}, nil
}

// reveal verifies and decrypts the hidden entity authentication data.
func (m *MTProtected) reveal(hidden hiddenEntity) ([]byte, error) {
	if m.Tokens == nil {
		return nil, msl.Failure(msl.ErrEntityAuthMasterTokenNotDecrypted, m.Scheme(), errors.New("nothing opens master tokens"))
	}
	session, err := m.Tokens(hidden.token)
	if err != nil {
		return nil, msl.Failure(msl.ErrEntityAuthMasterTokenNotDecrypted, m.Scheme(), err)
	}
	defer session.Release()
	key := sessionKey(session.Keys)
	if err := key.Verify(hidden.data, hidden.signature); err != nil {
		return nil, msl.Failure(msl.ErrEntityAuthVerificationFailed, m.Scheme(), err)
	}
	return key.Decrypt(hidden.data)
}

// permit looks up the revealed entity. Its own scheme also did, in its own directory.
func (m *MTProtected) permit(ctx context.Context, identity, inner string) error {
	entity, err := lookUp(ctx, m.Directory, identity, "")
	if err != nil {
		return err
	}
	if entity != nil && entity.Scheme != m.Scheme() && entity.Scheme != inner {
		return msl.Failure(msl.ErrIncorrectEntityAuthData, m.Scheme(), nil)
	}
	return nil
}

func sessionKey(keys *msl.SessionKeys) msl.SymmetricKey {
	return msl.SymmetricKey{Encryption: keys.Encryption, MAC: keys.Signature}
}
