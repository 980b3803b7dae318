package msl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// ErrNothing means that there is nothing to inspect.
var ErrNothing = errors.New("msl: nothing to inspect: the input is empty")

// An Inspector explains messages and tokens to a person. With keys it verifies and
// decrypts; without, it shows what anyone can see. It checks only the form of a message,
// not the other rules of the protocol.
type Inspector struct {
	Issuer        *Issuer        // opens tokens; nil if its keys are not available
	Senders       []EntityScheme // open messages; nil if their keys are not available
	ServiceTokens ServiceTokenKeys
	// Secrets shows passwords and keys found inside.
	Secrets bool
}

// A Part is one element of the inspected data.
type Part struct {
	Name  string `json:"name"`
	Value any    `json:"value,omitempty"` // string, int64, bool, or nil if it has parts
	Note  string `json:"note,omitempty"`  // an explanation, if any
	Parts []Part `json:"parts,omitempty"`
}

// Inspect explains every object of r in turn: messages, tokens or ciphertext envelopes.
// If one cannot be read, it returns the parts before it and an error.
func (i *Inspector) Inspect(ctx context.Context, r io.Reader) ([]Part, error) {
	var parts []Part
	var opened []func()
	defer func() {
		for _, release := range opened {
			release()
		}
	}()
	in := wire.NewDecoder(r, wire.Limits{})
	message := &inspected{Inspector: i, opened: &opened}
	for {
		o, err := in.Next()
		if err == io.EOF && len(parts) == 0 {
			return nil, ErrNothing
		}
		if err == io.EOF {
			return parts, nil
		}
		if err != nil {
			return parts, fmt.Errorf("msl: inspect object %d: %w", len(parts)+1, err)
		}
		switch {
		case o.Has("headerdata") || o.Has("errordata"):
			message.opener = nil
			parts = append(parts, message.header(ctx, o))
		case o.Has("payload"):
			parts = append(parts, message.chunk(o))
		case o.Has("tokendata"):
			parts = append(parts, message.token("token", o))
		case o.Has("ciphertext") && !o.Has("recipients"):
			parts = append(parts, envelopePart("ciphertext envelope", o.Raw()))
		default:
			parts = append(parts, message.object("object", o))
		}
	}
}

// An inspected is the message being explained. Its keys are those of its header, or those
// delivered by its key exchange.
type inspected struct {
	*Inspector
	opener Opener    // of payload chunks; nil without keys
	opened *[]func() // release what was opened
}

func (m *inspected) header(ctx context.Context, o wire.Object) Part {
	p := Part{Name: "message header"}
	name := "headerdata"
	if o.Has("errordata") {
		p.Name, name = "error header", "errordata"
	}
	var session *Session
	if token, err := o.Object("mastertoken"); err == nil {
		part := m.token("mastertoken", token)
		if session = m.open(token); session != nil {
			m.opener = session.key()
		}
		p.Parts = append(p.Parts, part)
	}
	if entity, err := o.Object("entityauthdata"); err == nil {
		p.Parts = append(p.Parts, m.object("entityauthdata", entity))
		m.opener = m.entity(ctx, entity)
	}
	p.Parts = append(p.Parts, m.protected(o, name)...)
	return p
}

// entity returns the opener for the messages of an entity, or nil.
func (m *inspected) entity(ctx context.Context, o wire.Object) Opener {
	data, err := parseSchemeData(o, "authdata", "entity authentication data", func(string) error { return nil })
	if err != nil {
		return nil
	}
	if data.scheme == "NONE" {
		return Null{}
	}
	for _, s := range m.Senders {
		if s.Scheme() != data.scheme {
			continue
		}
		if sender, release, err := s.Open(ctx, bytes.Clone(data.data)); err == nil {
			*m.opened = append(*m.opened, release)
			return sender.Opener
		}
	}
	return nil
}

// protected explains a part that is encrypted and signed.
func (m *inspected) protected(o wire.Object, name string) []Part {
	f := wire.FieldsOf(o)
	data, signature := f.Bytes(name), f.Bytes("signature")
	if f.Err() != nil {
		return []Part{{Name: name, Note: "unreadable: " + f.Err().Error()}}
	}
	verdict := Part{Name: "signature", Value: signatureEnvelope(signature), Note: verdict(m.opener, data, signature)}
	plaintext := data
	var shown Part
	if _, err := parseCiphertextEnvelope(new(wire.Memory), data, wire.Limits{Object: len(data)}); err == nil {
		shown = envelopePart(name, data)
		if m.opener == nil {
			return []Part{shown, verdict}
		}
		if plaintext, err = m.opener.Decrypt(data); err != nil {
			shown.Note = "does not decrypt"
			return []Part{shown, verdict}
		}
	}
	inside, err := wire.Parse(plaintext, wire.Limits{})
	if err != nil {
		return []Part{{Name: name, Value: fmt.Sprintf("%d bytes", len(data)), Note: "not an object"}, verdict}
	}
	explained := m.object(name, inside)
	explained.Note = shown.Note
	return []Part{explained, verdict}
}

func verdict(opener Opener, data, signature []byte) string {
	if opener == nil {
		return "not verified: no keys for it"
	}
	if !authenticates(opener) {
		return "none: the sender proves nothing"
	}
	if opener.Verify(data, signature) != nil {
		return "WRONG"
	}
	return "verified"
}

func (m *inspected) chunk(o wire.Object) Part {
	p := Part{Name: "payload chunk", Parts: m.protected(o, "payload")}
	if len(p.Parts) > 0 {
		p.Parts[0] = inflate(p.Parts[0])
	}
	return p
}

// inflate shows the data of a chunk as the sender's application wrote it.
func inflate(p Part) Part {
	algorithm := ""
	for _, inner := range p.Parts {
		if inner.Name == "compressionalgo" {
			algorithm, _ = inner.Value.(string)
		}
	}
	for n, inner := range p.Parts {
		text, ok := inner.Value.(string)
		if inner.Name != "data" || !ok {
			continue
		}
		data, err := wire.DecodeBase64(text)
		if err == nil && len(data) > 0 {
			data, err = decompress(algorithm, data, Limits{}.forClient().inflation())
		}
		if err != nil {
			p.Parts[n].Note = "does not decompress"
			continue
		}
		p.Parts[n].Value, p.Parts[n].Note = readable(data), fmt.Sprintf("%d bytes", len(data))
	}
	return p
}

// readable shows bytes as text if they are valid text.
func readable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return fmt.Sprintf("%x", b)
}

// token explains a master token, a user ID token or a service token.
func (m *inspected) token(name string, o wire.Object) Part {
	p := Part{Name: name}
	sealed, err := parseSignedToken(o, name, ErrMSLParseError)
	if err != nil {
		p.Note = "unreadable"
		return p
	}
	data, err := sealed.parseData()
	if err != nil {
		p.Note = "unreadable tokendata"
		return p
	}
	var opener Opener
	kind, secret := "object", ""
	switch {
	case data.Has("sessiondata"):
		kind, secret = "master token", "sessiondata"
	case data.Has("userdata"):
		kind, secret = "user ID token", "userdata"
	case data.Has("servicedata"):
		kind, secret = "service token", "servicedata"
	}
	content, _ := data.Bytes(secret)
	if kind == "service token" {
		tokenName, _ := data.String("name")
		if key, ok := m.ServiceTokens.of(tokenName); ok {
			opener, _ = verifiedToken(key, sealed.tokenData, sealed.signature, content, everyVersion())
		}
	} else if m.Issuer != nil {
		if key, _, err := m.Issuer.verify(sealed, content); err == nil {
			opener = key
		}
	}
	p = m.object(name, data)
	p.Note = kind
	if kind == "master token" && m.Issuer != nil && opener == nil {
		p.Note += ", not issued here"
	}
	for n := range p.Parts {
		if p.Parts[n].Name == secret {
			p.Parts[n] = m.tokenContent(secret, data, content, opener)
		}
	}
	p.Parts = append(p.Parts, Part{Name: "signature", Value: signatureEnvelope(sealed.signature), Note: verdict(opener, sealed.tokenData, sealed.signature)})
	return p
}

// tokenContent explains the inside of a token.
func (m *inspected) tokenContent(name string, token wire.Object, content []byte, opener Opener) Part {
	encrypted := true
	if name == "servicedata" {
		encrypted, _ = token.Bool("encrypted")
	}
	if encrypted && len(content) > 0 {
		shown := envelopePart(name, content)
		if opener == nil {
			return shown
		}
		plaintext, err := opener.Decrypt(content)
		if err != nil {
			shown.Note = "does not decrypt"
			return shown
		}
		content = plaintext
	}
	if name == "servicedata" {
		algorithm, _ := token.String("compressionalgo")
		if long, err := decompress(algorithm, content, Limits{}.forClient().inflation()); err == nil {
			content = long
		}
		return Part{Name: name, Value: readable(content), Note: fmt.Sprintf("%d bytes", len(content))}
	}
	o, err := wire.Parse(content, wire.Limits{})
	if err != nil {
		return Part{Name: name, Note: "not an object"}
	}
	return m.object(name, o)
}

// open opens the session of a master token, if its keys are available.
func (m *inspected) open(o wire.Object) *Session {
	if m.Issuer == nil {
		return nil
	}
	t, err := parseMasterToken(o)
	if err != nil {
		return nil
	}
	session, err := m.Issuer.Open(t)
	if err != nil {
		return nil
	}
	*m.opened = append(*m.opened, session.Release)
	return session
}

func envelopePart(name string, b []byte) Part {
	e, err := parseCiphertextEnvelope(new(wire.Memory), b, wire.Limits{Object: len(b)})
	if err != nil {
		return Part{Name: name, Value: fmt.Sprintf("%d bytes", len(b)), Note: "not a ciphertext envelope"}
	}
	note := fmt.Sprintf("encrypted: version %d", e.version)
	if e.version == 1 {
		note += ", key id " + strconv.Quote(e.keyID)
	}
	return Part{Name: name, Value: fmt.Sprintf("%d bytes of ciphertext", len(e.ciphertext)), Note: note}
}

// object explains the members of any object.
func (m *inspected) object(name string, o wire.Object) Part {
	p := Part{Name: name}
	isJWK := o.Has("kty")
	for _, member := range o.Names() {
		v, _ := o.Value(member)
		if part, done := m.jwkMember(member, v); isJWK && done {
			p.Parts = append(p.Parts, part)
			continue
		}
		p.Parts = append(p.Parts, m.member(member, v))
	}
	return p
}

func (m *inspected) member(name string, v wire.Value) Part {
	switch v.Kind() {
	case wire.ObjectKind:
		o, _ := v.Object()
		return m.nested(name, o)
	case wire.ArrayKind:
		p := Part{Name: name}
		elements, _ := v.Elements()
		for n, e := range elements {
			element := m.member(name, e)
			element.Name = strconv.Itoa(n + 1)
			p.Parts = append(p.Parts, element)
		}
		return p
	case wire.StringKind:
		text, _ := v.Text()
		return m.text(name, text)
	case wire.BoolKind:
		b, _ := v.Bool()
		return Part{Name: name, Value: b}
	}
	n, err := v.Int()
	if err != nil {
		return Part{Name: name, Value: string(v.Raw())}
	}
	return Part{Name: name, Value: n, Note: numberNote(name, n)}
}

// secretMembers are hidden unless requested. The wrapped keys of a key response have
// the same names as raw keys in a token, but are not secret.
var secretMembers = map[string]bool{
	"password": true, "encryptionkey": true, "hmackey": true, "signaturekey": true, "pin": true,
	"encryption": true, "mac": true, "wrapping": true, // of files of pre-shared keys
}

// nested explains the objects that need more than a list of their members.
func (m *inspected) nested(name string, o wire.Object) Part {
	switch {
	case o.Has("tokendata") && o.Has("signature"):
		return m.token(name, o)
	case name == "keydata":
		return m.keyData(name, o)
	case name == "authdata" && o.Has("mastertoken") && o.Has("signature"):
		return m.hidden(o)
	}
	if name == "keyresponsedata" {
		if token, err := o.Object("mastertoken"); err == nil {
			if session := m.open(token); session != nil {
				m.opener = session.key() // of the payload chunks that follow
			} else {
				m.opener = nil
			}
		}
	}
	return m.object(name, o)
}
