package identity

import (
	"bytes"
	"cmp"
	"crypto"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An ek is an endorsement key that can be used now.
type ek struct {
	tpm2.NamedHandle
	area   *tpm2.TPMTPublic
	public []byte
}

// is reports whether it is the wanted key; nil means any.
func (k ek) is(wanted crypto.PublicKey) bool {
	p, err := proof.ParsePublic(k.public)
	return err == nil && (wanted == nil || keystore.SamePublic(p.Key, wanted))
}

// useEK passes the wanted EK to f, or any for nil: the manufacturer's persistent one, or
// one made again, which is the same key as long as the TPM keeps its endorsement seed. If
// none is the wanted one, f gets that of the usual template, unless some EK merely could
// not be made now.
func useEK(t transport.TPM, kind EKKind, wanted crypto.PublicKey, f func(ek) error) error {
	e, err := ekInfoOf(kind)
	if err != nil {
		return err
	}
	templates, unread, err := e.templates(t)
	if err != nil {
		return err
	}
	k, ok, err := e.kept(t, templates)
	if err != nil {
		return err
	}
	if ok && k.is(wanted) {
		return f(k)
	}
	for i, template := range templates {
		last := i == len(templates)-1 && unread == nil
		used, err := useTemplate(t, template, func(k ek) bool { return last || k.is(wanted) }, f)
		if used || err != nil && (last || errors.Is(err, keystore.ErrPIN) || !refusesAlways(err)) {
			return err
		}
	}
	return unread
}

// kept returns the persistent EK, if it matches one of the templates.
func (e ekInfo) kept(t transport.TPM, templates []tpm2.TPMTPublic) (k ek, ok bool, err error) {
	r, err := tpm2.ReadPublic{ObjectHandle: e.persistent}.Execute(t)
	if err = tpm.CommandError("TPM2_ReadPublic", err); refusesAlways(err) {
		return k, false, nil
	}
	if err != nil {
		return k, false, err
	}
	area, err := r.OutPublic.Contents()
	if err != nil {
		return k, false, nil
	}
	for _, template := range templates {
		if sameTemplate(area, template) {
			return ek{tpm2.NamedHandle{Handle: e.persistent, Name: r.Name}, area, r.OutPublic.Bytes()}, true, nil
		}
	}
	return k, false, nil
}

// useTemplate makes the key of a template, and passes it to f if it is fit.
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

// templates returns the possible templates of the EK, the usual one last. A manufacturer
// may have stored another, and a nonce for either (TCG EK Credential Profile). An invalid
// stored template counts as absent. unread describes what exists but may not be read.
func (e ekInfo) templates(t transport.TPM) (list []tpm2.TPMTPublic, unread, err error) {
	stored, whyStored, err := readNV(t, e.stored)
	if err != nil {
		return nil, nil, err
	}
	nonce, whyNonce, err := readNV(t, e.nonce)
	if err != nil {
		return nil, nil, err
	}
	unread = cmp.Or(unreadable(e.stored, whyStored), unreadable(e.nonce, whyNonce))
	plain := []tpm2.TPMTPublic{e.template}
	if template, ok := parseTemplate(stored); ok && template.Type == e.template.Type {
		plain = []tpm2.TPMTPublic{*template, e.template}
	}
	for _, template := range plain {
		if with, ok := withNonce(template, nonce); ok {
			list = append(list, with)
		}
	}
	return append(list, plain...), unread, nil
}

// unreadable is the error for an index without which an EK cannot be made again, or nil.
func unreadable(index tpm2.TPMHandle, why string) error {
	if why == "" || why == neverWritten {
		return nil
	}
	return fmt.Errorf("enroll: the EK is made from the contents of %#x, which cannot be read: %s: %w", uint32(index), why, keystore.ErrUnavailable)
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

// withNonce puts a nonce, followed by zeros, into the unique field of a template.
func withNonce(template tpm2.TPMTPublic, nonce []byte) (tpm2.TPMTPublic, bool) {
	const rsaSize, eccSize = 256, 32 // of the low range, the only one with nonces
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

// use passes the EK of a state file to f, or returns [ErrOtherTPM] if the TPM has
// another.
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
