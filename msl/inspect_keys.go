package msl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// text explains a string, by its name.
func (m *inspected) text(name, text string) Part {
	switch {
	case secretMembers[name] && !m.Secrets:
		return Part{Name: name, Note: "secret, not shown"}
	case isJOSE[name]:
		return josePart(name, text)
	case name == "x509certificate":
		if p, ok := certificatePart(name, text); ok {
			return p
		}
	case name == "sealedencryptionkey", name == "sealedsignaturekey":
		if b, err := wire.DecodeBase64(text); err == nil {
			if p := sealedPart(name, b); p.Note != "" {
				return p
			}
		}
	}
	return Part{Name: name, Value: text}
}

// keyData explains the data of a key request or key response. Members named like keys are
// wrapped keys there, and need not be hidden.
func (m *inspected) keyData(name string, o wire.Object) Part {
	p := Part{Name: name}
	for _, member := range o.Names() {
		v, _ := o.Value(member)
		text, err := v.Text()
		b, bad := wire.DecodeBase64(text)
		switch {
		case err != nil || bad != nil:
			p.Parts = append(p.Parts, m.member(member, v))
		case member == "publickey":
			p.Parts = append(p.Parts, publicPart(member, b))
		case member == "encryptionkey", member == "hmackey", member == "wrapkey", member == "wrapdata":
			p.Parts = append(p.Parts, m.wrapped(member, b))
		default:
			p.Parts = append(p.Parts, m.member(member, v))
		}
	}
	return p
}

// wrapped explains a wrapped key: a JWE in either form, a key sealed by a key store, or
// bytes.
func (m *inspected) wrapped(name string, b []byte) Part {
	if o, err := wire.Parse(b, wire.Limits{}); err == nil {
		p := m.object(name, o)
		p.Note = fmt.Sprintf("%d bytes, JWE", len(b))
		return p
	}
	if parts := bytes.Split(b, []byte{'.'}); len(parts) == 5 {
		p := Part{Name: name, Note: fmt.Sprintf("%d bytes, JWE", len(b))}
		for n, member := range []string{"header", "encrypted_key", "initialization_vector", "ciphertext", "integrity_value"} {
			p.Parts = append(p.Parts, josePart(member, string(parts[n])))
		}
		return p
	}
	if p := sealedPart(name, b); p.Note != "" {
		return p
	}
	return Part{Name: name, Value: fmt.Sprintf("%d bytes", len(b)), Note: "wrapped"}
}

// josePart explains one element of a JWE, in Base64url.
func josePart(name, text string) Part {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Part{Name: name, Value: text}
	}
	if name == "header" {
		return Part{Name: name, Value: readable(b)}
	}
	return Part{Name: name, Value: fmt.Sprintf("%d bytes", len(b))}
}

// isJOSE are the members of a JWE in its JSON form.
var isJOSE = map[string]bool{
	"header": true, "encrypted_key": true, "initialization_vector": true, "ciphertext": true, "integrity_value": true,
}

// sealedPart explains a key sealed by a store. The note is empty if it is not a sealed
// key.
func sealedPart(name string, b []byte) Part {
	sealed, err := keystore.ParseSealed(b)
	if err != nil || !sealed.Algorithm.Valid() {
		return Part{Name: name}
	}
	return Part{
		Name: name, Value: fmt.Sprintf("%d bytes", len(b)),
		Note: fmt.Sprintf("%v key, sealed by version %d of a key store's sealing key", sealed.Algorithm, sealed.KEKVersion),
	}
}

// publicPart explains a public key: of a key pair, or a Diffie-Hellman value.
func publicPart(name string, b []byte) Part {
	if public, err := x509.ParsePKIXPublicKey(b); err == nil {
		return Part{Name: name, Value: publicText(public)}
	}
	return Part{Name: name, Value: fmt.Sprintf("number of %d bits", new(big.Int).SetBytes(b).BitLen())}
}

func publicText(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA key of %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "elliptic curve key on " + k.Curve.Params().Name
	}
	return fmt.Sprintf("%T", public)
}

// certificatePart explains a certificate, or reports that it is not one.
func certificatePart(name, text string) (Part, bool) {
	der, err := wire.DecodeBase64(text)
	if err != nil {
		return Part{}, false
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Part{}, false
	}
	return Part{Name: name, Note: fmt.Sprintf("%d bytes, not verified", len(der)), Parts: []Part{
		{Name: "subject", Value: c.Subject.String()},
		{Name: "issuer", Value: c.Issuer.String()},
		{Name: "serial number", Value: c.SerialNumber.Text(16)},
		{Name: "not before", Value: c.NotBefore.UTC().Format(time.RFC3339)},
		{Name: "not after", Value: c.NotAfter.UTC().Format(time.RFC3339)},
		{Name: "public key", Value: publicText(c.PublicKey)},
	}}, true
}

// secretJWK lists the private members of a JSON Web Key (RFC 7518 sections 6.2.2, 6.3.2
// and 6.4.1).
var secretJWK = map[string]bool{"k": true, "d": true, "p": true, "q": true, "dp": true, "dq": true, "qi": true, "oth": true}

// jwkMember explains the members of a JSON Web Key that are not plain text.
func (m *inspected) jwkMember(name string, v wire.Value) (Part, bool) {
	switch {
	case secretJWK[name] && !m.Secrets:
		return Part{Name: name, Note: "secret, not shown"}, true
	case name != "n":
		return Part{}, false
	}
	text, _ := v.Text()
	b, err := base64.RawURLEncoding.DecodeString(text)
	return Part{Name: name, Value: fmt.Sprintf("number of %d bits", new(big.Int).SetBytes(b).BitLen())}, err == nil
}

// hidden explains the data that MT_PROTECTED encrypts under a master token.
func (m *inspected) hidden(o wire.Object) Part {
	p := m.object("authdata", o)
	token, err := o.Object("mastertoken")
	if err != nil {
		return p
	}
	data, errD := o.Bytes("authdata")
	signature, errS := o.Bytes("signature")
	if errD != nil || errS != nil {
		return p
	}
	var opener Opener
	if session := m.open(token); session != nil {
		opener = session.key()
	}
	for n := range p.Parts {
		switch p.Parts[n].Name {
		case "authdata":
			p.Parts[n] = m.inner(data, opener)
		case "signature":
			p.Parts[n] = Part{Name: "signature", Value: fmt.Sprintf("%d bytes", len(signature)), Note: verdict(opener, data, signature)}
		}
	}
	return p
}

func (m *inspected) inner(data []byte, opener Opener) Part {
	shown := envelopePart("authdata", data)
	if opener == nil {
		return shown
	}
	plaintext, err := opener.Decrypt(data)
	if err != nil {
		shown.Note = "does not decrypt"
		return shown
	}
	o, err := wire.Parse(plaintext, wire.Limits{})
	if err != nil {
		return Part{Name: "authdata", Note: "not an object"}
	}
	p := m.object("authdata", o)
	p.Note = "hidden under the master token"
	return p
}

// signatureEnvelope explains a version 2 signature, which has an envelope of its own.
func signatureEnvelope(signature []byte) string {
	o, err := wire.Parse(signature, wire.Limits{})
	if err != nil {
		return strconv.Itoa(len(signature)) + " bytes"
	}
	algorithm, _ := o.String("algorithm")
	inner, _ := o.Bytes("signature")
	return fmt.Sprintf("%d bytes, %s", len(inner), algorithm)
}
