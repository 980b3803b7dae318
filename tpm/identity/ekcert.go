package identity

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// certificates returns those at the NV index of a kind of EK, its own first, or why none
// can be read.
func (e ekInfo) certificates(t transport.TPM) (list [][]byte, why string, err error) {
	data, why, err := readNV(t, e.certificate)
	if err != nil || data == nil {
		return nil, why, err
	}
	if list = proof.OwnFirst(proof.Certificates(data), e.kind); len(list) == 0 {
		why = "it contains no certificate"
	}
	return list, why, nil
}

// certifiedKey returns the key that is certified for a kind of EK, or nil if no
// certificate can be read.
func certifiedKey(t transport.TPM, kind EKKind) (crypto.PublicKey, error) {
	e, err := ekInfoOf(kind)
	if err != nil {
		return nil, err
	}
	list, _, err := e.certificates(t)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	c, err := proof.ParseCertificate(list[0])
	if err != nil {
		return nil, nil // counts as no certificate, which the authority reports
	}
	return c.PublicKey, nil
}

// readCertificates returns the certificate of an EK and those above it that the
// manufacturer stored (TCG EK Credential Profile). own is one from a
// file, which replaces the one in the TPM. There may be none. note gets a line for each
// index that cannot be used.
func readCertificates(t transport.TPM, kind EKKind, own [][]byte, note func(string)) ([][]byte, error) {
	e, err := ekInfoOf(kind)
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		var why string
		if own, why, err = e.certificates(t); err != nil {
			return nil, err
		}
		if why != "" {
			report(note, fmt.Sprintf("the EK certificate at %#x is not used: %s", uint32(e.certificate), why))
		}
	}
	if len(own) == 0 {
		return nil, nil
	}
	above, err := readChain(t, note)
	if err != nil {
		return nil, err
	}
	list := own[:1:1]
	for _, der := range append(own[1:len(own):len(own)], above...) {
		if _, damaged := proof.ParseCertificate(der); damaged == nil && len(list) < proof.MaxCertificates {
			list = append(list, der)
		}
	}
	return list, nil
}

// readChain returns the contents of the indices for certificates above those of EKs.
func readChain(t transport.TPM, note func(string)) ([][]byte, error) {
	const firstOfChain, lastOfChain = 0x01c00100, 0x01c001ff
	handles, err := tpm.Handles(t, firstOfChain, lastOfChain)
	if err != nil {
		return nil, err
	}
	var contents [][]byte
	for _, handle := range handles {
		data, why, err := readNV(t, tpm2.TPMHandle(handle))
		if err != nil {
			return nil, err
		}
		if why != "" {
			report(note, fmt.Sprintf("the certificates at %#x are not used: %s", handle, why))
		}
		contents = append(contents, data)
	}
	return proof.Certificates(contents...), nil
}

const neverWritten = "it was never written"

// readNV reads an NV index with an empty password, or as the owner. If it does not exist,
// data is nil; if it exists but cannot be read, why says so in a few words.
func readNV(t transport.TPM, index tpm2.TPMHandle) (data []byte, why string, err error) {
	if index == 0 {
		return nil, "", nil
	}
	p, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		err = tpm.CommandError("TPM2_NV_ReadPublic", err)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil, "", nil
		}
		return nil, "", err
	}
	area, err := p.NVPublic.Contents()
	if err != nil {
		return nil, "", fmt.Errorf("enroll: TPM2_NV_ReadPublic: %w", err)
	}
	if !area.Attributes.Written {
		return nil, neverWritten, nil
	}
	data, err = readAllowed(t, tpm2.NamedHandle{Handle: index, Name: p.NVName}, area)
	switch {
	case err == nil:
		return data, "", nil
	case errors.Is(err, tpm2.TPMRCNVUninitialized):
		return nil, neverWritten, nil
	case refusesAlways(err) || errors.Is(err, errNobody):
		return nil, err.Error(), nil
	}
	return nil, "", err
}

var errNobody = errors.New("it can be read only with a policy or by the platform")

// readAllowed reads an index according to its attributes. If a wrong password is counted,
// the owner comes first, since the owner's password is not counted.
func readAllowed(t transport.TPM, index tpm2.NamedHandle, area *tpm2.TPMSNVPublic) (data []byte, err error) {
	empty := func() error {
		data, err = readNVData(t, func() (tpm2.AuthHandle, error) { return authorized(index), nil }, index, int(area.DataSize))
		return err
	}
	owner := func() (tpm2.AuthHandle, error) { return tpm.Hierarchy(t, tpm2.TPMRHOwner) }
	a := area.Attributes
	if a.AuthRead && a.NoDA {
		err = empty()
		return data, err
	}
	err = errNobody
	if a.OwnerRead {
		data, err = readNVData(t, owner, index, int(area.DataSize))
	}
	if err != nil && a.AuthRead && (!a.OwnerRead || refusesAlways(err)) {
		err = tpm.Guess(t, index.Name.Buffer, empty)
	}
	return data, err
}

// readNVData reads an index with the authorization from as, which is called again for
// each command.
func readNVData(t transport.TPM, as func() (tpm2.AuthHandle, error), index tpm2.NamedHandle, size int) ([]byte, error) {
	const step = 512 // bytes that every TPM returns in one response
	var data []byte
	for len(data) < size {
		reader, err := as()
		if err != nil {
			return nil, err
		}
		r, err := tpm2.NVRead{
			AuthHandle: reader, NVIndex: index, Size: uint16(min(step, size-len(data))), Offset: uint16(len(data)),
		}.Execute(t)
		if err != nil {
			return nil, tpm.CommandError("TPM2_NV_Read", err)
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fmt.Errorf("enroll: TPM2_NV_Read: no data")
		}
		data = append(data, r.Data.Buffer...)
	}
	return data, nil
}
