package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const counterSize = 8 // bytes of an NV counter

// nvDefineCounter is TPM2_NV_DefineSpace for a counter (TPM 2.0 Library, Part 3,
// clause 31.3).
func nvDefineCounter(x *executor, at uint32) error {
	public := tpm2.Marshal(tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(at), NameAlg: tpm2.TPMAlgSHA256, DataSize: counterSize,
		Attributes: tpm2.TPMANV{
			NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true,
		},
	})
	_, err := x.runAs(uint32(tpm2.TPMRHOwner), command{code: ccNVDefineSpace, params: append16([]byte{0, 0}, public)})
	return err
}

// nvReadPublic is TPM2_NV_ReadPublic (clause 31.6). It checks that the index is a counter
// that needs no password and writes every value to flash (is not orderly).
func nvReadPublic(x *executor, at uint32) (index entity, written bool, err error) {
	r, err := x.run(command{code: ccNVReadPublic, handles: []entity{{handle: at}}})
	if err != nil {
		return index, false, err
	}
	b, _, ok := cut16(r.params)
	if !ok {
		return index, false, fmt.Errorf("tpm: TPM2_NV_ReadPublic: %w", errAnswer())
	}
	p, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](b)
	if err != nil {
		return index, false, fmt.Errorf("tpm: TPM2_NV_ReadPublic: %w: %w", keystore.ErrBadData, err)
	}
	t := p.Attributes
	if t.NT != tpm2.TPMNTCounter || !t.AuthRead || !t.AuthWrite || !t.NoDA || t.Orderly || p.NameAlg != tpm2.TPMAlgSHA256 || uint32(p.NVIndex) != at {
		return index, false, fmt.Errorf("it is not a counter of this kind: choose another index: %w", keystore.ErrWrongKey)
	}
	return entity{handle: at, name: nameOf(b)}, t.Written, nil
}

// nvIncrement is TPM2_NV_Increment (clause 31.8).
func nvIncrement(x *executor, s *session, index entity) error {
	_, err := x.run(command{code: ccNVIncrement, handles: []entity{index, index}, session: s})
	return err
}

// nvRead is TPM2_NV_Read (clause 31.13).
func nvRead(x *executor, s *session, index entity) (uint64, error) {
	r, err := x.run(command{
		code: ccNVRead, handles: []entity{index, index}, session: s, params: []byte{0, counterSize, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	b, rest, ok := cut16(r.params)
	if !ok || len(b) != counterSize || len(rest) > 0 {
		return 0, errAnswer()
	}
	return binary.BigEndian.Uint64(b), nil
}
