package msl

import (
	"context"
	"io"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// An envelope is the unverified outer part of a header: the claimed sender, the
// ciphertext and the signature.
type envelope struct {
	entity    *schemeData
	scheme    EntityScheme // that entity names
	token     wire.Object  // if entity is nil
	data      []byte
	signature []byte
	isError   bool
}

// parseEnvelope makes the checks of a header that come before its sender is
// known. It calls token with the master token at the right place among them.
func parseEnvelope(o wire.Object, entities []EntityScheme, token func(wire.Object) error) (envelope, error) {
	const op = "header"
	hasEntity, hasToken := o.Has("entityauthdata"), o.Has("mastertoken")
	if hasEntity && hasToken {
		return envelope{}, fail(ErrMSLParseError, "header has entity authentication data and a master token", nil)
	}
	f, env := wire.FieldsOf(o), envelope{}
	if hasEntity {
		entity, err := parseSchemeData(f.Object("entityauthdata"), "authdata", "entity authentication data")
		if err != nil {
			return env, err
		}
		env.entity = &entity
		env.scheme, err = pick(entities, entity.scheme, entitySchemes, ErrUnidentifiedEntityAuthScheme, ErrEntityAuthFactoryNotFound)
		if err != nil {
			return env, err
		}
	}
	if hasToken {
		env.token = f.Object("mastertoken")
		if f.Err() == nil {
			if err := token(env.token); err != nil {
				return env, err
			}
		}
	}
	env.signature = f.Bytes("signature")
	if env.isError = !o.Has("headerdata"); env.isError {
		env.data = f.Bytes("errordata")
	} else {
		env.data = f.Bytes("headerdata")
	}
	if err := malformed(f, op); err != nil {
		return env, err
	}
	if !hasEntity && (!hasToken || env.isError) {
		return env, fail(ErrMessageEntityNotFound, op, nil)
	}
	return env, nil
}

// verify checks the signature.
func (env envelope) verify(s Sender) error {
	const op = "header"
	if len(env.data) == 0 {
		return fail(ErrHeaderDataMissing, op, nil)
	}
	switch err := s.Opener.Verify(env.data, env.signature); {
	case err == errSignature && env.isError:
		return fail(ErrMessageVerificationFailed, op, nil)
	case err == errSignature && env.entity == nil:
		return fail(ErrMessageMasterTokenBasedVerificationFailed, op, nil)
	case err == errSignature:
		return fail(ErrMessageEntityDataBasedVerificationFailed, op, nil)
	default:
		return err
	}
}

// open verifies, then decrypts. Nothing else opens a header, whose length the outside
// limits. The first chunk is opened beside it.
func (env envelope) open(s Sender, depth int, first *earlyChunk) (wire.Object, error) {
	const op = "header"
	err := env.verify(s)
	if first.goOn(err == nil); err != nil {
		return wire.Object{}, err
	}
	plaintext, err := s.Opener.Decrypt(env.data)
	if err != nil {
		return wire.Object{}, err
	}
	o, err := wire.Parse(plaintext, wire.Limits{Object: len(plaintext), Depth: depth})
	if err != nil {
		return wire.Object{}, fail(ErrMSLParseError, op, exceeded(err, "Header"))
	}
	return o, nil
}

// An identification is how an outgoing message identifies its sender.
type identification struct {
	token     *MasterToken // or
	scheme    string       // the name of an entity scheme and
	local     Credentials  // of this side's entity
	protector Protector
}

// localIdentification identifies this side by its entity scheme. random is for the
// initialization vectors; nil means crypto/rand.
func localIdentification(ctx context.Context, s LocalEntity, random io.Reader) (identification, error) {
	local, err := s.Credentials(ctx)
	if err != nil {
		return identification{}, err
	}
	return identification{scheme: s.Scheme(), local: local, protector: drawing(local.Protector, random)}, nil
}

func (id identification) release() {
	if id.local.Release != nil {
		id.local.Release()
	}
}

// encodeMessage protects the inside of a header and writes it under name,
// headerdata or errordata.
func (id identification) encodeMessage(name string, inside []byte) ([]byte, error) {
	data, err := id.protector.Encrypt(inside)
	if err != nil {
		return nil, err
	}
	signature, err := id.protector.Sign(data)
	if err != nil {
		return nil, err
	}
	who, by := "mastertoken", []byte(nil)
	if id.token != nil {
		by = id.token.Bytes()
	} else {
		who, by = "entityauthdata", schemeData{scheme: id.scheme, data: id.local.AuthData}.encode("authdata")
	}
	e := wire.NewEncoder(128 + len(by) + (len(data)+len(signature))*4/3)
	e.Begin()
	e.Raw(who, by)
	e.Bytes(name, data)
	e.Bytes("signature", signature)
	e.End()
	return e.Encoded(), nil
}
