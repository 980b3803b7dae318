package msl

import (
	"cmp"
	"context"
	"io"
	"slices"
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

// parseEnvelope makes the checks of a header that come before its sender is known. Among
// them, in its place, it calls token with the master token. The parts are decoded in
// place.
func parseEnvelope(o wire.Object, entities []EntityScheme, token func(wire.Object) error) (envelope, error) {
	const op = "header"
	hasEntity, hasToken := o.Has("entityauthdata"), o.Has("mastertoken")
	if hasEntity && hasToken {
		return envelope{}, fail(ErrMSLParseError, "header has entity authentication data and a master token", nil)
	}
	f, env := wire.FieldsOf(o), envelope{}
	if hasEntity {
		entity, err := parseSchemeData(f.Object("entityauthdata"), "authdata", "entity authentication data", findEntityScheme(&env.scheme, entities))
		if err != nil {
			return env, err
		}
		env.entity = &entity
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
		return env, cmp.Or(env.checkForm(), err)
	}
	if !hasEntity && (!hasToken || env.isError) {
		return env, fail(ErrMessageEntityNotFound, op, nil)
	}
	return env, nil
}

// checkForm returns what is wrong with the form of the sender's data, if its scheme
// reports that. It is reported before any fault in the rest of the header.
func (env envelope) checkForm() error {
	if scheme, ok := env.scheme.(interface{ Check(authdata []byte) error }); ok {
		return scheme.Check(env.entity.data)
	}
	return nil
}

// refused is the error for a header with a bad signature, and err otherwise.
func (env envelope) refused(err error) error {
	const op = "header"
	switch {
	case err == errSignature && env.isError:
		return fail(ErrMessageVerificationFailed, op, nil)
	case err == errSignature && env.entity == nil:
		return fail(ErrMessageMasterTokenBasedVerificationFailed, op, nil)
	case err == errSignature:
		return fail(ErrMessageEntityDataBasedVerificationFailed, op, nil)
	}
	return err
}

// open verifies, then decrypts. Headers are opened only here; the outer part limits their
// length. The first chunk is opened concurrently. The object is in mem.
func (env envelope) open(mem *wire.Memory, s Sender, depth int, first *earlyChunk) (wire.Object, error) {
	const op = "header"
	plaintext, err := env.plaintext(mem, s.Opener, first)
	if err != nil {
		return wire.Object{}, err
	}
	mem.Content = plaintext
	o, err := mem.Parse(plaintext, wire.Limits{Object: len(plaintext), Depth: depth})
	if err != nil {
		return wire.Object{}, fail(ErrMSLParseError, op, exceeded(err, "Header"))
	}
	return o, nil
}

func (env envelope) plaintext(mem *wire.Memory, opener Opener, first *earlyChunk) (plaintext []byte, err error) {
	if len(env.data) == 0 {
		first.goOn(false)
		return nil, fail(ErrHeaderDataMissing, "header", nil)
	}
	if !first.waited() {
		plaintext, err = openShared(mem, opener, env.data, env.signature, first)
		if plaintext != nil || err != nil {
			return plaintext, env.refused(err)
		}
	}
	err = verifyIn(mem, opener, env.data, env.signature)
	if first.goOn(err == nil); err != nil {
		return nil, env.refused(err)
	}
	return decryptIn(mem, opener, mem.Content[:0], env.data)
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

// A sealedHeader is the first object of a message, protected, until it is sent.
type sealedHeader struct {
	who             string // mastertoken or entityauthdata
	by              []byte
	name            string // headerdata or errordata
	data, signature []byte
}

// seal protects a header.
func (id identification) seal(h *header, now time.Time) (*sealedHeader, error) {
	e := wire.Scratch(512)
	defer e.Free()
	h.write(e, now)
	return id.sealAs("headerdata", e.Encoded())
}

func (h *header) encoded(now time.Time) []byte {
	e := wire.Scratch(512)
	defer e.Free()
	h.write(e, now)
	return slices.Clone(e.Encoded())
}

// sealAs protects the inside of a header, to be sent under that name.
func (id identification) sealAs(name string, inside []byte) (*sealedHeader, error) {
	mem := wire.NewMemory()
	defer mem.Free()
	data, signature, err := sealIn(mem, id.protector, inside)
	if err != nil {
		return nil, err
	}
	return id.sealedAs(name, data, signature), nil
}

// sealedAs makes a sealed header from a copy of protected data.
func (id identification) sealedAs(name string, data, signature []byte) *sealedHeader {
	h := &sealedHeader{who: "mastertoken", name: name, data: slices.Concat(data, signature)}
	h.data, h.signature = h.data[:len(data)], h.data[len(data):]
	if id.token != nil {
		h.by = id.token.Bytes()
	} else {
		h.who, h.by = "entityauthdata", schemeData{scheme: id.scheme, data: id.local.AuthData}.encode("authdata")
	}
	return h
}

// send writes the object and returns the number of bytes written.
func (h *sealedHeader) send(w io.Writer) (int, error) {
	e := wire.Scratch(128 + len(h.by) + (len(h.data)+len(h.signature))*4/3)
	defer e.Free()
	e.Begin()
	e.Raw(h.who, h.by)
	e.Bytes(h.name, h.data)
	e.Bytes("signature", h.signature)
	e.End()
	return w.Write(e.Encoded())
}
