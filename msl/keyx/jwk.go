package keyx

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A jwk is a JSON Web Key in the form that MSL took from an early draft of the JOSE
// working group (draft-ietf-jose-json-web-key): "rsa" in lower case, the use "wrap", and
// "extractable" for the later "ext".
type jwk struct {
	kty         string
	use         string   // or
	ops         []string // key_ops
	alg         string
	extractable bool
	kid         string
	k           []byte // the key of kty oct, in base64url
	n, e, d     []byte // the numbers of kty rsa, in base64url
}

var (
	jwkTypes      = []string{"oct", "rsa"}
	jwkUses       = []string{"sig", "enc", "wrap"}
	jwkOperations = []string{"sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"}
	jwkAlgorithms = []string{"HS256", "RSA1_5", "RSA-OAEP", "A128KW", "A128CBC"}
)

// A purpose is what the key in a JWK is for.
type purpose struct {
	use  string
	ops  []string
	alg  string
	size int
}

var (
	forEncryption = purpose{"enc", []string{"decrypt", "encrypt"}, "A128CBC", 16}
	forSignature  = purpose{"sig", []string{"verify", "sign"}, "HS256", 32}
	forWrapping   = purpose{"wrap", []string{"wrapKey", "unwrapKey"}, "A128KW", 16}
)

// withUse and withOps are the two forms of a JWK: a key has a use or operations.
func (p purpose) withUse() jwk { return jwk{kty: "oct", use: p.use, alg: p.alg} }
func (p purpose) withOps() jwk { return jwk{kty: "oct", ops: p.ops, alg: p.alg} }

// maxJWK is more than any JWK of a symmetric key takes here.
const maxJWK = 512

// text writes a JWK with those key bytes into locked memory, its members in the order of
// the reference stack.
func (k jwk) text(key []byte) *lockedmem.Buffer {
	room := lockedmem.New(maxJWK)
	defer room.Close()
	return lockedmem.Copy(k.append(room.Bytes()[:0], key))
}

func (k jwk) append(b, key []byte) []byte {
	b = append(b, `{"kty":"`...)
	b = append(b, k.kty...)
	if k.use != "" {
		b = append(append(b, `","use":"`...), k.use...)
	}
	b = append(b, `","extractable":`...)
	if k.extractable {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	if k.kid != "" {
		b = append(append(append(b, `,"kid":"`...), k.kid...), '"')
	}
	for i, op := range k.ops {
		lead := `,"`
		if i == 0 {
			lead = `,"key_ops":["`
		}
		b = append(append(append(b, lead...), op...), '"')
	}
	if len(k.ops) > 0 {
		b = append(b, ']')
	}
	b = append(b, `,"k":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, key)
	return append(append(append(b, `","alg":"`...), k.alg...), `"}`...)
}

// errNoJWK is the error for a text that is not a JSON object. Its code depends on the
// exchange.
var errNoJWK = errors.New("keyx: not a JSON object")

// parseJWK reads a JWK. The result refers to text, whose escapes it may overwrite. Errors have no cause, since that could
// quote the text.
func parseJWK(text []byte) (jwk, error) {
	o, err := wire.Parse(text, wire.Limits{})
	if err != nil {
		return jwk{}, errNoJWK
	}
	f := wire.FieldsOf(o)
	k := jwk{
		kty: f.String("kty"), use: f.OptionalString("use"), alg: f.OptionalString("alg"), kid: f.OptionalString("kid"),
		ops: f.OptionalStrings("key_ops"), extractable: f.OptionalBool("extractable"),
	}
	if f.Err() != nil {
		return jwk{}, errJWK()
	}
	if err := k.known(o); err != nil {
		return jwk{}, err
	}
	return k, k.numbers(o)
}

func errJWK() error { return msl.Failure(msl.ErrMSLParseError, "JWK", nil) }

// known refuses undefined names, of which the empty one is one, in the order of the
// reference stack.
func (k jwk) known(o wire.Object) error {
	const op = "JWK"
	switch {
	case !slices.Contains(jwkTypes, k.kty):
		return msl.Failure(msl.ErrUnidentifiedJWKType, op, nil)
	case o.Has("use") && !slices.Contains(jwkUses, k.use):
		return msl.Failure(msl.ErrUnidentifiedJWKUsage, op, nil)
	case slices.ContainsFunc(k.ops, func(s string) bool { return !slices.Contains(jwkOperations, s) }):
		return msl.Failure(msl.ErrUnidentifiedJWKKeyOp, op, nil)
	case o.Has("alg") && !slices.Contains(jwkAlgorithms, k.alg):
		return msl.Failure(msl.ErrUnidentifiedJWKAlgorithm, op, nil)
	}
	return nil
}

func (k *jwk) numbers(o wire.Object) (err error) {
	if k.kty == "oct" {
		k.k, err = number(o, "k")
		return err
	}
	if k.n, err = number(o, "n"); err != nil {
		return err
	}
	if o.Has("e") {
		k.e, err = number(o, "e")
	}
	if err == nil && o.Has("d") {
		k.d, err = number(o, "d")
	}
	if err == nil && k.e == nil && k.d == nil {
		return errJWK()
	}
	return err
}

// key decodes the key into room, which has exactly its size, if it matches the purpose.
// The algorithm decides: a JWK without one is useless.
func (k jwk) key(p purpose, room []byte) error {
	if k.kty != "oct" || k.alg != p.alg || base64.RawURLEncoding.DecodedLen(len(k.k)) != len(room) || len(room) != p.size {
		return msl.Failure(msl.ErrSessionKeyCreationFailure, "JWK of another key", nil)
	}
	if decodeURL(room, k.k) != nil {
		return msl.Failure(msl.ErrInvalidJWKKeyData, "JWK", nil)
	}
	return nil
}

// number finds base64url in place: a Go string would be a copy that nothing can
// overwrite. Escapes are resolved there too.
func number(o wire.Object, name string) ([]byte, error) {
	v, ok := o.Value(name)
	if !ok || v.Kind() != wire.StringKind {
		return nil, errJWK()
	}
	raw := v.Raw()
	padded := raw[1 : len(raw)-1]
	if bytes.IndexByte(padded, '\\') >= 0 {
		plain, err := v.Secret()
		if err != nil {
			return nil, errJWK()
		}
		padded = padded[:copy(padded, plain)]
		clear(plain)
	}
	text, ok := unpadded(padded)
	if !ok {
		return nil, msl.Failure(msl.ErrInvalidJWKKeyData, "JWK", nil)
	}
	return text, nil
}
