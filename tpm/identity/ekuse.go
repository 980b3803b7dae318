package identity

import (
	"bytes"
	"crypto"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An ek is an endorsement key that can be used now.
type ek struct {
	tpm2.NamedHandle
	area   *tpm2.TPMTPublic
	public []byte
}

// is reports whether it is a wanted key; nil means any.
func (k ek) is(wanted crypto.PublicKey) bool {
	p, err := proof.ParsePublic(k.public)
	return err == nil && (wanted == nil || proof.SameKey(p.Key, wanted))
}

// useEK gives f the wanted EK, or any for nil: the persistent one of the manufacturer, or
// one that is made again, which is the same key as long as the TPM keeps its endorsement
// seed. If none is the wanted one, f gets that of the usual template: not if one could only
// not be made now.
func useEK(t transport.TPM, kind EKKind, wanted crypto.PublicKey, f func(ek) error) error {
	e, err := ekInfoOf(kind)
	if err != nil {
		return err
	}
	templates, err := e.templates(t)
	if err != nil {
		return err
	}
	if k, ok := e.kept(t, templates); ok && k.is(wanted) {
		return f(k)
	}
	for i, template := range templates {
		used, err := useTemplate(t, template, func(k ek) bool { return k.is(wanted) || i == len(templates)-1 }, f)
		if used || err != nil && (i == len(templates)-1 || !refusesTemplate(err)) {
			return err
		}
	}
	return nil
}

// refusesTemplate reports whether an error of TPM2_CreatePrimary may be about what it was given,
// as those in format one are (TPM 2.0 Library, Part 2, clause 6.6.2).
func refusesTemplate(err error) bool {
	const formatOne = 0x80
	var rc tpm2.TPMRC
	return errors.As(err, &rc) && rc&formatOne != 0
}

// kept returns the persistent EK, if it is of one of the templates.
func (e ekInfo) kept(t transport.TPM, templates []tpm2.TPMTPublic) (k ek, ok bool) {
	r, err := tpm2.ReadPublic{ObjectHandle: e.persistent}.Execute(t)
	if err != nil {
		return k, false
	}
	area, err := r.OutPublic.Contents()
	if err != nil {
		return k, false
	}
	for _, template := range templates {
		if sameTemplate(area, template) {
			return ek{tpm2.NamedHandle{Handle: e.persistent, Name: r.Name}, area, r.OutPublic.Bytes()}, true
		}
	}
	return k, false
}

// useTemplate makes the key of a template, and gives it to f if it is fit.
func useTemplate(t transport.TPM, template tpm2.TPMTPublic, fit func(ek) bool, f func(ek) error) (used bool, err error) {
	endorsement, err := tpm.Hierarchy(t, tpm2.TPMRHEndorsement)
	if err != nil {
		return false, err
	}
	r, err := tpm2.CreatePrimary{PrimaryHandle: endorsement, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return false, tpm.HierarchyError("TPM2_CreatePrimary", tpm2.TPMRHEndorsement, err)
	}
	defer flush(t, r.ObjectHandle)
	area, err := r.OutPublic.Contents()
	if err != nil {
		return false, proof.Fail(ErrKey, "EK: %w", err)
	}
	k := ek{tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, area, r.OutPublic.Bytes()}
	if !fit(k) {
		return false, nil
	}
	return true, f(k)
}

// templates returns the templates that the EK may be of, the usual one last. A manufacturer
// may have stored another, and a nonce that belongs into either (TCG EK Credential Profile,
// section 2.2.1.6). What is stored and is none counts as not there.
func (e ekInfo) templates(t transport.TPM) (list []tpm2.TPMTPublic, err error) {
	stored, _, err := readNV(t, e.stored)
	if err != nil {
		return nil, err
	}
	nonce, _, err := readNV(t, e.nonce)
	if err != nil {
		return nil, err
	}
	plain := []tpm2.TPMTPublic{e.template}
	if template, ok := parseTemplate(stored); ok && template.Type == e.template.Type {
		plain = []tpm2.TPMTPublic{*template, e.template}
	}
	for _, template := range plain {
		if with, ok := withNonce(template, nonce); ok {
			list = append(list, with)
		}
	}
	return append(list, plain...), nil
}

// parseTemplate reads a TPMT_PUBLIC, or a TPM2B_PUBLIC as some tools store it.
func parseTemplate(raw []byte) (*tpm2.TPMTPublic, bool) {
	if len(raw) > 2 && int(raw[0])<<8|int(raw[1]) == len(raw)-2 {
		raw = raw[2:]
	}
	template, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return nil, false
	}
	a := template.ObjectAttributes
	return template, a.FixedTPM && a.FixedParent && a.Restricted && a.Decrypt && !a.SignEncrypt
}

// withNonce puts a nonce at the beginning of what a template gives of the key, and zeros
// after it.
func withNonce(template tpm2.TPMTPublic, nonce []byte) (tpm2.TPMTPublic, bool) {
	const rsaSize, eccSize = 256, 32 // of the low range, which alone has nonces
	fill := func(size int) []byte { return append(bytes.Clone(nonce), make([]byte, size-len(nonce))...) }
	switch {
	case len(nonce) == 0:
	case template.Type == tpm2.TPMAlgRSA && len(nonce) <= rsaSize:
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: fill(rsaSize)})
		return template, true
	case template.Type == tpm2.TPMAlgECC && len(nonce) <= eccSize:
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: fill(eccSize)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, eccSize)},
		})
		return template, true
	}
	return template, false
}

// sameTemplate compares everything except the key itself.
func sameTemplate(area *tpm2.TPMTPublic, template tpm2.TPMTPublic) bool {
	template.Unique = area.Unique
	return area.Type == template.Type && bytes.Equal(tpm2.Marshal(*area), tpm2.Marshal(template))
}

// sameEK compares public areas by their keys.
func sameEK(a, b []byte) bool {
	x, err := proof.ParsePublic(a)
	return err == nil && ek{public: b}.is(x.Key)
}

// key returns the EK of a state file.
func (s *ekState) key() (crypto.PublicKey, error) {
	p, err := proof.ParsePublic(s.Public)
	return p.Key, err
}

// use gives f the EK of a state file, or returns [ErrOtherTPM] if the TPM has another.
func (s *ekState) use(t transport.TPM, path string, f func(ek) error) error {
	key, err := s.key()
	if err != nil {
		return err
	}
	return useEK(t, s.Kind, key, func(k ek) error {
		if !k.is(key) {
			return proof.Fail(ErrOtherTPM, "%s", path)
		}
		return f(k)
	})
}
