package msl

import (
	"bytes"
	"context"
	"io"
	"time"

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
// known. It calls token with the master token at the right place among them. The parts
// are decoded in place.
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
		entity.data = bytes.Clone(entity.data) // a scheme may keep it
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
	env.signature = f.Decoded("signature")
	if env.isError = !o.Has("headerdata"); env.isError {
		env.data = f.Decoded("errordata")
	} else {
		env.data = f.Decoded("headerdata")
	}
	if err := malformed(f, op); err != nil {
		return env, err
	}
	if !hasEntity && (!hasToken || env.isError) {
		return env, fail(ErrMessageEntityNotFound, op, nil)
	}
	return env, nil
}

// open verifies, then decrypts. Nothing else opens a header, whose length the outside
// limits.
func (env envelope) open(mem *wire.Memory, s Sender, depth int) (wire.Object, error) {
	const op = "header"
	if len(env.data) == 0 {
		return wire.Object{}, fail(ErrHeaderDataMissing, op, nil)
	}
	switch err := verifyIn(mem, s.Opener, env.data, env.signature); {
	case err == errSignature && env.isError:
		return wire.Object{}, fail(ErrMessageVerificationFailed, op, nil)
	case err == errSignature && env.entity == nil:
		return wire.Object{}, fail(ErrMessageMasterTokenBasedVerificationFailed, op, nil)
	case err == errSignature:
		return wire.Object{}, fail(ErrMessageEntityDataBasedVerificationFailed, op, nil)
	case err != nil:
		return wire.Object{}, err
	}
	plaintext, err := decryptIn(mem, s.Opener, nil, env.data) // parts of it are kept
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

// encodeHeader protects a header.
func (id identification) encodeHeader(h *header, now time.Time) ([]byte, error) {
	e := wire.Scratch(512)
	defer e.Free()
	h.write(e, now)
	if h.userAuth != nil { // its secret must not stay in the scratch memory
		defer clear(e.Encoded())
	}
	return id.encodeMessage("headerdata", e.Encoded())
}

// encodeMessage protects the inside of a header and writes it under name,
// headerdata or errordata.
func (id identification) encodeMessage(name string, inside []byte) ([]byte, error) {
	mem := wire.NewMemory()
	defer mem.Free()
	data, signature, err := sealIn(mem, id.protector, inside)
	if err != nil {
		return nil, err
	}
	who, by := "mastertoken", []byte(nil)
	if id.token != nil {
		by = id.token.Bytes()
	} else {
		who, by = "entityauthdata", schemeData{scheme: id.scheme, data: id.local.AuthData}.encode("authdata")
	}
	e := wire.NewEncoder(64 + len(by) + (len(data)+len(signature))*4/3)
	e.Begin()
	e.Raw(who, by)
	e.Bytes(name, data)
	e.Bytes("signature", signature)
	e.End()
	return e.Encoded(), nil
}
