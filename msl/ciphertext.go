package msl

import (
	"slices"
	"strconv"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A ciphertextEnvelope carries the output of a symmetric or an asymmetric cipher (MSL
// wiki, "Cryptography"). This package writes version 1; version 2 is read only for
// inspection, since no stack decrypts it.
type ciphertextEnvelope struct {
	version    int
	keyID      string // version 1
	cipherSpec string // version 2
	iv         []byte // nil if absent
	ciphertext []byte
}

// envelopeHash fills a hash field of the protocol that no stack checks.
var envelopeHash = []byte{0}

// parseCiphertextEnvelope reads an envelope. The binary parts are in the scratch memory
// of mem.
func parseCiphertextEnvelope(mem *wire.Memory, b []byte, lim wire.Limits) (ciphertextEnvelope, error) {
	o, err := mem.Parse(b, lim)
	if err != nil {
		return ciphertextEnvelope{}, fail(ErrMSLParseError, "ciphertext envelope", err)
	}
	version := int64(1) // also if absent or not a number
	if v, ok := o.Value("version"); ok {
		if n, err := v.Int(); err == nil {
			version = n
		}
	}
	switch version {
	case 1:
		return parseEnvelope1(mem, o)
	case 2:
		return parseEnvelope2(mem, o)
	}
	return ciphertextEnvelope{}, fail(ErrUnidentifiedCiphertextEnvelope, "ciphertext envelope", nil)
}

// parseDecryptable reads an envelope that is to be decrypted. Like the reference stacks it
// takes each for version 1, and does not look at its member version.
func parseDecryptable(mem *wire.Memory, b []byte) (ciphertextEnvelope, error) {
	o, err := mem.Parse(b, wire.Limits{Object: len(b)})
	if err != nil {
		return ciphertextEnvelope{}, fail(ErrMSLParseError, "ciphertext envelope", err)
	}
	return parseEnvelope1(mem, o)
}

func parseEnvelope1(mem *wire.Memory, o wire.Object) (ciphertextEnvelope, error) {
	f := wire.FieldsOf(o)
	e := ciphertextEnvelope{version: 1, keyID: f.String("keyid")}
	e.parseBytes(mem, f)
	f.AppendBytes(mem.Scratch, "sha256")
	return e, malformed(f, "ciphertext envelope")
}

func (e *ciphertextEnvelope) parseBytes(mem *wire.Memory, f *wire.Fields) {
	mem.Scratch = mem.Scratch[:0]
	if f.Has("iv") {
		mem.Scratch = f.AppendBytes(mem.Scratch, "iv")
		e.iv = mem.Scratch[:len(mem.Scratch):len(mem.Scratch)]
	}
	mem.Scratch = f.AppendBytes(mem.Scratch, "ciphertext")
	e.ciphertext = mem.Scratch[len(e.iv):]
}

func parseEnvelope2(mem *wire.Memory, o wire.Object) (ciphertextEnvelope, error) {
	f := wire.FieldsOf(o)
	spec := f.String("cipherspec")
	if f.Err() == nil {
		var ok bool
		if spec, ok = cipherSpec(spec); !ok {
			return ciphertextEnvelope{}, fail(ErrUnidentifiedCipherSpec, "ciphertext envelope", nil)
		}
	}
	e := ciphertextEnvelope{version: 2, cipherSpec: spec}
	e.parseBytes(mem, f)
	return e, malformed(f, "ciphertext envelope")
}

// cipherSpec reads a version 2 cipher specification, given by its name or its identifier
// spelling.
func cipherSpec(name string) (string, bool) {
	switch name {
	case "AES/CBC/PKCS5Padding", "AES_CBC_PKCS5Padding":
		return "AES/CBC/PKCS5Padding", true
	case "AESWrap":
		return "AESWrap", true
	case "RSA/ECB/PKCS1Padding", "RSA_ECB_PKCS1Padding":
		return "RSA/ECB/PKCS1Padding", true
	}
	return "", false
}

// envelopeSize is the size of an envelope without its ciphertext and key name.
const envelopeSize = 112

func (e ciphertextEnvelope) append(dst []byte) []byte {
	at := len(dst)
	dst = slices.Grow(dst, envelopeSize+len(e.keyID)+len(e.ciphertext)*4/3)
	enc := wire.EncoderOn(dst[at:])
	enc.Begin()
	if e.version == 2 {
		enc.Int("version", 2)
		enc.String("cipherspec", e.cipherSpec)
	} else {
		enc.String("keyid", e.keyID)
	}
	if e.iv != nil {
		enc.Bytes("iv", e.iv)
	}
	enc.Bytes("ciphertext", e.ciphertext)
	if e.version != 2 {
		enc.Bytes("sha256", envelopeHash)
	}
	enc.End()
	return append(dst, enc.Encoded()...) // usually in place
}

// bareSignature returns the signature inside b, which is either the bare bytes
// or a version 2 signature envelope. The algorithm that such an envelope names
// is ignored: the verifier knows its own.
func bareSignature(b []byte, lim wire.Limits) []byte {
	if len(b) == 0 || b[0] != '{' {
		return b
	}
	o, err := wire.Parse(b, lim)
	if err != nil {
		return b
	}
	if version, err := o.Int("version"); err != nil || version != 2 {
		return b
	}
	algorithm, err := o.String("algorithm")
	if err != nil || !signatureAlgorithm(algorithm) {
		return b
	}
	signature, err := o.Bytes("signature")
	if err != nil {
		return b
	}
	return signature
}

func signatureAlgorithm(name string) bool {
	return name == "HmacSHA256" || name == "SHA256withRSA" || name == "AESCmac"
}

// malformed turns the first failure of a reader into a parse error.
func malformed(f *wire.Fields, op string) error {
	if err := f.Err(); err != nil {
		return fail(ErrMSLParseError, op, exceeded(err, "Header"))
	}
	return nil
}

// maxNumber is the greatest identifier of the protocol, 2^53.
const maxNumber = 1 << 53

func inRange(n int64) bool { return n >= 0 && n <= maxNumber }

// next is the id after id; after the largest it is 0.
func next(id int64) int64 {
	if id == maxNumber {
		return 0
	}
	return id + 1
}

func keyID(identity string, sequence int64) string {
	return identity + "_" + strconv.FormatInt(sequence, 10)
}
