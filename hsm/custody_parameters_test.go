package hsm_test

import (
	"encoding/binary"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// parameters returns a mechanism with every parameter that it may need.
func (a *trials) parameters(m uint) (all [][]*pkcs11.Mechanism) {
	add := func(p any) { all = append(all, []*pkcs11.Mechanism{pkcs11.NewMechanism(m, p)}) }
	switch m {
	case pkcs11.CKM_AES_GCM:
		add(pkcs11.NewGCMParams(a.data[:12], nil, 128))
	case pkcs11.CKM_RSA_PKCS_OAEP:
		all = append(all, oaep)
	case pkcs11.CKM_AES_CTR:
		add(append(binary.NativeEndian.AppendUint64(nil, 128), a.data...))
	case pkcs11.CKM_RSA_PKCS_PSS, pkcs11.CKM_SHA256_RSA_PKCS_PSS:
		add(pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32))
	default:
		add(nil)
		add(a.data)
		add(a.data[:8])
	}
	return all
}

// deriving returns parameters for derivations, some of which hold pointers.
func (a *trials) deriving(m uint) (all [][]*pkcs11.Mechanism) {
	add := func(p any) { all = append(all, []*pkcs11.Mechanism{pkcs11.NewMechanism(m, p)}) }
	pointer := binary.NativeEndian.AppendUint64(nil, uint64(uintptr(unsafe.Pointer(&a.data[0]))))
	text := binary.NativeEndian.AppendUint64(pointer, uint64(len(a.data))) // CK_KEY_DERIVATION_STRING_DATA
	switch m {
	case pkcs11.CKM_ECDH1_DERIVE:
		add(pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, a.point))
	case pkcs11.CKM_DH_PKCS_DERIVE:
		add(make([]byte, 256))
	case pkcs11.CKM_DES_CBC_ENCRYPT_DATA, pkcs11.CKM_DES3_CBC_ENCRYPT_DATA:
		add(append(make([]byte, 8), text...))
	case pkcs11.CKM_AES_CBC_ENCRYPT_DATA:
		add(append(make([]byte, 16), text...))
	case pkcs11.CKM_EXTRACT_KEY_FROM_KEY, pkcs11.CKM_CONCATENATE_BASE_AND_KEY:
		add(binary.NativeEndian.AppendUint64(nil, uint64(a.known)))
	default:
		add(text)
	}
	return all
}
