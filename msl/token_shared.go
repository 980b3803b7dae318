package msl

import (
	"errors"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// sharedSessionData is sessiondata in the form of the reference stacks, with the
// signature key under its old name too. It takes ownership of raw. Its content is in
// locked memory until released.
func sharedSessionData(s *Session, raw *RawKeys) (content []byte, release func()) {
	// Enough room for the identity even if every character is escaped, so that the
	// encoder does not leave the locked buffer.
	memory := lockedmem.New(512 + 6*len(s.Identity) + len(s.IssuerData))
	e := wire.EncoderOn(memory.Bytes())
	e.Begin()
	if s.IssuerData != nil {
		e.Raw("issuerdata", s.IssuerData)
	}
	e.String("identity", s.Identity)
	e.Bytes("encryptionkey", raw.Encryption())
	e.String("encryptionalgorithm", aesName)
	e.Bytes("hmackey", raw.Signature())
	e.Bytes("signaturekey", raw.Signature())
	e.String("signaturealgorithm", hmacName)
	e.End()
	raw.Close()
	return e.Encoded(), memory.Close
}

// importShared imports the session keys of a token of the reference stacks.
func importShared(i *Issuer, o wire.Object, shared bool) (*SessionKeys, error) {
	const op = "open shared master token"
	if !shared {
		return nil, fail(ErrMasterTokenUntrusted, op, errors.New("tokens in the reference form are not accepted here: custody is not shared"))
	}
	importer, ok := i.Store.(keystore.Importer)
	if !ok {
		return nil, fail(ErrMasterTokenUntrusted, op, errors.ErrUnsupported)
	}
	f := wire.FieldsOf(o)
	encryption, mac := f.Bytes("encryptionkey"), []byte(nil)
	if o.Has("signaturekey") {
		mac = f.Bytes("signaturekey")
	} else {
		mac = f.Bytes("hmackey")
	}
	defer clear(encryption)
	defer clear(mac)
	encryptionName, macName := aesName, hmacName
	if f.Has("encryptionalgorithm") {
		encryptionName = f.String("encryptionalgorithm")
	}
	if f.Has("signaturealgorithm") {
		macName = f.String("signaturealgorithm")
	}
	if f.Err() != nil {
		return nil, fail(ErrMasterTokenSessionDataParseError, op, f.Err())
	}
	ea, sa, err := sharedAlgorithms(encryptionName, macName, len(encryption))
	if err != nil {
		return nil, err
	}
	e, err := importer.Import(ea, encryption)
	if err != nil {
		return nil, KeyFailure(ErrMasterTokenKeyCreationError, op, err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	s, err := importer.Import(sa, mac)
	if err != nil {
		e.Close()
		return nil, KeyFailure(ErrMasterTokenKeyCreationError, op, err, keystore.ErrBadData, errors.ErrUnsupported)
	}
	return sessionKeys(e, s)
}

func sharedAlgorithms(encryption, signature string, size int) (e, s keystore.Algorithm, err error) {
	known := encryption == aesName && (signature == hmacName || signature == cmacName || signature == rsaName)
	if !known {
		return 0, 0, fail(ErrUnidentifiedAlgorithm, "open shared master token", nil)
	}
	e, s = keystore.AES128CBC, keystore.HMACSHA256
	if size == 32 {
		e = keystore.AES256CBC
	}
	if signature == cmacName {
		s = keystore.AESCMAC128
	}
	if signature == rsaName {
		return 0, 0, fail(ErrMasterTokenKeyCreationError, "open shared master token", errors.ErrUnsupported)
	}
	return e, s, nil
}
