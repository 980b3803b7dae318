package hsmtest

import "github.com/miekg/pkcs11"

// An Imitation is a module that is not here, imitated from what is published about it: the
// mechanisms that it wraps with, and its limits. Nobody compared it with the module.
type Imitation struct {
	Name   string
	Source string // where its vendor says so
	Faults []Fault
}

// Numbers of mechanisms that miekg/pkcs11 does not name.
const (
	ckmKeyWrap      = 0x2109     // CKM_AES_KEY_WRAP
	ckmCloudNoPad   = 0x80002109 // CKM_CLOUDHSM_AES_KEY_WRAP_NO_PAD
	ckmLunaKeyWrap  = 0x80000170 // CKM_AES_KW
	ckmLunaKeyWrapP = 0x80000171 // CKM_AES_KWP
)

// Imitations are all of them.
func Imitations() []Imitation {
	unknown := func(mechanisms ...uint) Fault { return Fault{Mechanism: mechanisms, Unknown: true} }
	as := func(m, real uint, pad int, drawsIV bool) Fault {
		return Fault{Mechanism: []uint{m}, As: real, Pad: pad, DrawsIV: drawsIV}
	}
	cloud := []Fault{
		as(ckmCloudNoPad, ckmKeyWrap, 0, false), as(pkcs11.CKM_AES_GCM, ckmKeyWrap, 8, true), {MaxPart: 16272},
		{Attribute: []uint{pkcs11.CKA_COPYABLE, pkcs11.CKA_ALLOWED_MECHANISMS}, Unknown: true},
	}
	return []Imitation{
		{"AWS CloudHSM, Client SDK 5", "docs.aws.amazon.com/cloudhsm/latest/userguide/pkcs11-mechanisms.html",
			append([]Fault{unknown(ckmKeyWrap, pkcs11.CKM_AES_KEY_WRAP_PAD)}, cloud...)},
		{"AWS CloudHSM, Client SDK 3", "docs.aws.amazon.com/cloudhsm/latest/userguide/pkcs11-v3-mechanisms.html",
			append([]Fault{unknown(pkcs11.CKM_AES_KEY_WRAP_PAD), as(ckmKeyWrap, ckmKeyWrap, 8, false)}, cloud...)},
		{"Thales Luna 7", "the header cryptoki_v2.h of its client",
			[]Fault{unknown(ckmKeyWrap, pkcs11.CKM_AES_KEY_WRAP_PAD), as(ckmLunaKeyWrap, ckmKeyWrap, 0, false), as(ckmLunaKeyWrapP, pkcs11.CKM_AES_KEY_WRAP_PAD, 0, false)}},
		{"YubiHSM 2", "docs.yubico.com/hardware/yubihsm-2, and the source of yubihsm_pkcs11",
			[]Fault{unknown(ckmKeyWrap, pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_CMAC), {TokenOnly: true}}},
		{"Google Cloud KMS", "github.com/GoogleCloudPlatform/kms-integrations, kmsp11/user_guide.md",
			[]Fault{unknown(ckmKeyWrap, pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_KEY_GEN, pkcs11.CKM_GENERIC_SECRET_KEY_GEN), {TokenOnly: true}}},
	}
}
