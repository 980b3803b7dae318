package tpm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type macKey struct{ *key }

// Sum computes a tag. The TPM accepts up to Capabilities.MaxBuffer bytes in one command,
// and more in a sequence of commands.
func (k macKey) Sum(data []byte) (tag []byte, err error) {
	err = k.use(func(l loadedKey) (err error) {
		tag, err = l.mac(k.algorithm, data)
		return err
	})
	return tag, err
}

// mac is TPM2_HMAC, also called TPM2_MAC, which computes AES-CMAC with a key for that
// (TPM 2.0 Library, Part 3, clauses 15.5 and 15.6).
func (l loadedKey) mac(a keystore.Algorithm, data []byte) ([]byte, error) {
	scheme := tpm2.TPMAlgSHA256
	if a == keystore.AESCMAC128 {
		scheme = tpm2.TPMAlgCMAC
	}
	if len(data) > l.tpm.caps.MaxBuffer {
		return l.macSequence(scheme, data)
	}
	params := append16(make([]byte, 0, len(data)+4), data)
	params = binary.BigEndian.AppendUint16(params, uint16(scheme))
	r, err := l.tpm.run(command{code: ccHMAC, handles: []entity{l.entity}, session: l.session, params: params, secretIn: true, secretOut: true})
	return first(ccHMAC, r, err)
}

// macSequence is TPM2_HMAC_Start, TPM2_SequenceUpdate and TPM2_SequenceComplete (clause
// 17).
func (l loadedKey) macSequence(scheme tpm2.TPMAlgID, data []byte) ([]byte, error) {
	params := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(scheme)) // no authorization value
	r, err := l.tpm.run(command{code: ccHMACStart, handles: []entity{l.entity}, session: l.session, params: params, makes: true})
	if err != nil {
		return nil, err
	}
	sequence := []entity{{handle: r.handle}}
	for ; len(data) > l.tpm.caps.MaxBuffer; data = data[l.tpm.caps.MaxBuffer:] {
		params = append16(params[:0], data[:l.tpm.caps.MaxBuffer])
		if _, err := l.tpm.run(command{code: ccSequenceUpdate, handles: sequence, session: l.session, params: params, secretIn: true}); err != nil {
			return nil, err
		}
	}
	params = binary.BigEndian.AppendUint32(append16(params[:0], data), handleNull)
	r, err = l.tpm.run(command{code: ccSequenceComplete, handles: sequence, session: l.session, params: params, secretIn: true, secretOut: true})
	return first(ccSequenceComplete, r, err)
}

// first copies the TPM2B at the start of a response.
func first(cc uint32, r response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b, _, ok := cut16(r.params)
	if !ok {
		return nil, fmt.Errorf("tpm: %s: %w", commandName(cc), errAnswer())
	}
	return slices.Clone(b), nil
}
