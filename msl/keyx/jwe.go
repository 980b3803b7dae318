package keyx

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"io"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// MSL encrypts JWKs with an early draft of JSON Web Encryption
// (draft-ietf-jose-json-web-encryption), not with RFC 7516: besides the ciphertext, the
// tag covers the header, the encrypted key and the initialization vector. Libraries for
// the standard therefore cannot read it.

// The names of algorithms in a JWE.
const (
	algOAEP   = "RSA-OAEP" // SHA-1, MGF1 with SHA-1
	algKW     = "A128KW"
	encGCM128 = "A128GCM"
	encGCM256 = "A256GCM"

	gcmIV  = 12
	gcmTag = 16
)

// A jwe is the parts of a JWE, in base64url as sent.
type jwe struct{ header, key, iv, ciphertext, tag []byte }

// A jweSuite is the pair of algorithms for one use of a JWE.
type jweSuite struct{ alg, enc string }

func (s jweSuite) cekSize() int {
	if s.enc == encGCM256 {
		return 32
	}
	return 16
}

// header is the encoded object, its members in the order of the reference stack.
func (s jweSuite) header() []byte {
	return base64url([]byte(`{"enc":"` + s.enc + `","alg":"` + s.alg + `"}`))
}

// seal encrypts plaintext under a new key, which wrap encrypts.
func (s jweSuite) seal(plaintext []byte, random io.Reader, wrap func(cek []byte) ([]byte, error)) (jwe, error) {
	const op = "JWE"
	memory := lockedmem.New(s.cekSize())
	defer memory.Close()
	cek, iv := memory.Bytes(), make([]byte, gcmIV)
	for _, b := range [][]byte{cek, iv} {
		if _, err := io.ReadFull(orRandom(random), b); err != nil {
			return jwe{}, msl.Failure(msl.ErrInternalException, op, err)
		}
	}
	wrapped, err := wrap(cek)
	if err != nil {
		return jwe{}, err
	}
	gcm, err := newGCM(cek)
	if err != nil {
		return jwe{}, msl.Failure(msl.ErrWrapError, op, err)
	}
	j := jwe{header: s.header(), key: base64url(wrapped), iv: base64url(iv)}
	sealed := gcm.Seal(nil, iv, plaintext, j.authenticated())
	n := len(sealed) - gcmTag
	j.ciphertext, j.tag = base64url(sealed[:n]), base64url(sealed[n:])
	return j, nil
}

// open decrypts a JWE in either form, with the key that unwrap returns. The error is 41
// for data that is not a JWE, 43 for other algorithms, 24 for a key of another length, 42
// for sizes that GCM does not allow, and 33 for data that does not decrypt.
func (s jweSuite) open(b []byte, unwrap func(wrapped []byte) ([]byte, error)) (*lockedmem.Buffer, error) {
	const op = "JWE"
	j, err := parseJWE(b)
	if err != nil {
		return nil, err
	}
	p, err := j.decode(s)
	if err != nil {
		return nil, err
	}
	cek, err := unwrap(p.key)
	if err != nil {
		return nil, err
	}
	defer clear(cek)
	if len(cek) != s.cekSize() {
		return nil, msl.Failure(msl.ErrInvalidSymmetricKey, op, nil)
	}
	if len(p.tag) != gcmTag || len(p.iv) != gcmIV {
		return nil, msl.Failure(msl.ErrInvalidAlgorithmParams, op, nil)
	}
	gcm, err := newGCM(cek)
	if err != nil {
		return nil, msl.Failure(msl.ErrInvalidSymmetricKey, op, err)
	}
	memory := lockedmem.New(len(p.ciphertext))
	sealed := append(p.ciphertext, p.tag...)
	if _, err := gcm.Open(memory.Bytes()[:0], p.iv, sealed, j.authenticated()); err != nil {
		memory.Close()
		return nil, msl.Failure(msl.ErrUnwrapError, op, nil)
	}
	return memory, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// authenticated is the additional data of the draft.
func (j jwe) authenticated() []byte {
	return bytes.Join([][]byte{j.header, j.key, j.iv}, []byte{'.'})
}

func (j jwe) compact() []byte {
	return bytes.Join([][]byte{j.header, j.key, j.iv, j.ciphertext, j.tag}, []byte{'.'})
}

// json is the object form with one recipient.
func (j jwe) json() []byte {
	e := wire.NewEncoder(256 + len(j.key) + len(j.ciphertext))
	e.Begin()
	e.String("ciphertext", string(j.ciphertext))
	e.BeginArray("recipients")
	e.Begin()
	e.String("integrity_value", string(j.tag))
	e.String("encrypted_key", string(j.key))
	e.String("header", string(j.header))
	e.End()
	e.EndArray()
	e.String("initialization_vector", string(j.iv))
	e.End()
	return e.Encoded()
}

func errJWE() error { return msl.Failure(msl.ErrJWEParseError, "JWE", nil) }

// parseJWE distinguishes the forms by the first byte.
func parseJWE(b []byte) (jwe, error) {
	if len(b) > 0 && b[0] == '{' {
		return parseJSONJWE(b)
	}
	parts := bytes.Split(b, []byte{'.'})
	if len(parts) != 5 {
		return jwe{}, errJWE()
	}
	return jwe{parts[0], parts[1], parts[2], parts[3], parts[4]}, nil
}

func parseJSONJWE(b []byte) (jwe, error) {
	o, err := wire.Parse(b, wire.Limits{})
	if err != nil {
		return jwe{}, errJWE()
	}
	f, first := wire.FieldsOf(o), firstRecipient(o)
	j := jwe{
		header: []byte(first.String("header")), key: []byte(first.String("encrypted_key")),
		iv:         []byte(f.String("initialization_vector")),
		ciphertext: []byte(f.String("ciphertext")), tag: []byte(first.String("integrity_value")),
	}
	if first.Err() != nil || f.Err() != nil {
		return jwe{}, errJWE()
	}
	return j, nil
}

// firstRecipient is the only one that is read, so the others may be anything.
func firstRecipient(o wire.Object) *wire.Fields {
	recipients, _ := o.Value("recipients")
	list, _ := recipients.Elements()
	if len(list) == 0 {
		return wire.FieldsOf(wire.Object{})
	}
	first, _ := list[0].Object()
	return wire.FieldsOf(first)
}

// decode decodes the parts from base64url, and checks the header.
func (j jwe) decode(want jweSuite) (p jwe, err error) {
	for _, part := range []struct {
		to   *[]byte
		from []byte
	}{{&p.header, j.header}, {&p.key, j.key}, {&p.iv, j.iv}, {&p.ciphertext, j.ciphertext}, {&p.tag, j.tag}} {
		text, ok := unpadded(part.from)
		if !ok {
			return p, errJWE()
		}
		*part.to = make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
		if decodeURL(*part.to, text) != nil {
			return p, errJWE()
		}
	}
	f := wire.ParseFields(p.header)
	alg, enc := f.String("alg"), f.String("enc")
	if f.Err() != nil || alg != algOAEP && alg != algKW || enc != encGCM128 && enc != encGCM256 {
		return p, errJWE()
	}
	if (jweSuite{alg, enc}) != want {
		return p, msl.Failure(msl.ErrJWEAlgorithmMismatch, "JWE", nil)
	}
	return p, nil
}

// unpadded is a text in base64url without its padding. The reference stacks accept padding, and
// the standard alphabet of Base64 too. It reports whether the text is valid and not empty: the
// decoder of the standard library skips line breaks.
func unpadded(padded []byte) ([]byte, bool) {
	text := bytes.TrimRight(padded, "=")
	ok := len(text) > 0 && len(text)%4 != 1 && len(padded) <= (len(text)+3)/4*4 &&
		!bytes.ContainsFunc(text, func(r rune) bool { return !isBase64(r) })
	return text, ok
}

func isBase64(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '+' || r == '/'
}

// decodeURL decodes an unpadded text, which may be a secret.
func decodeURL(dst, text []byte) error {
	if bytes.ContainsAny(text, "+/") {
		memory := lockedmem.Copy(text)
		defer memory.Close()
		text = memory.Bytes()
		for i, c := range text {
			switch c {
			case '+':
				text[i] = '-'
			case '/':
				text[i] = '_'
			}
		}
	}
	_, err := base64.RawURLEncoding.Decode(dst, text)
	return err
}

func base64url(b []byte) []byte { return base64.RawURLEncoding.AppendEncode(nil, b) }

func orRandom(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}
