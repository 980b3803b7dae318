package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// The commands that this package sends or looks for (TPM 2.0 Library, Part 2, clause
// 6.5.2).
const (
	ccEvictControl     = uint32(tpm2.TPMCCEvictControl)
	ccCreatePrimary    = uint32(tpm2.TPMCCCreatePrimary)
	ccSequenceComplete = uint32(tpm2.TPMCCSequenceComplete)
	ccStartup          = uint32(tpm2.TPMCCStartup)
	ccShutdown         = uint32(tpm2.TPMCCShutdown)
	ccCreate           = uint32(tpm2.TPMCCCreate)
	ccHMAC             = uint32(tpm2.TPMCCMAC)
	ccImport           = uint32(tpm2.TPMCCImport)
	ccLoad             = uint32(tpm2.TPMCCLoad)
	ccRSADecrypt       = uint32(tpm2.TPMCCRSADecrypt)
	ccHMACStart        = uint32(tpm2.TPMCCMACStart)
	ccSequenceUpdate   = uint32(tpm2.TPMCCSequenceUpdate)
	ccSign             = uint32(tpm2.TPMCCSign)
	ccContextLoad      = uint32(tpm2.TPMCCContextLoad)
	ccFlushContext     = uint32(tpm2.TPMCCFlushContext)
	ccLoadExternal     = uint32(tpm2.TPMCCLoadExternal)
	ccReadPublic       = uint32(tpm2.TPMCCReadPublic)
	ccStartAuthSession = uint32(tpm2.TPMCCStartAuthSession)
	ccGetRandom        = uint32(tpm2.TPMCCGetRandom)
	ccGetCapability    = uint32(tpm2.TPMCCGetCapability)
	ccHashSequence     = uint32(tpm2.TPMCCHashSequenceStart)
	ccCreateLoaded     = uint32(tpm2.TPMCCCreateLoaded)
	ccEncryptDecrypt2  = uint32(tpm2.TPMCCEncryptDecrypt2)
	ccNVDefineSpace    = uint32(tpm2.TPMCCNVDefineSpace)
	ccNVUndefineSpace  = uint32(tpm2.TPMCCNVUndefineSpace)
	ccNVIncrement      = uint32(tpm2.TPMCCNVIncrement)
	ccNVRead           = uint32(tpm2.TPMCCNVRead)
	ccNVReadPublic     = uint32(tpm2.TPMCCNVReadPublic)
	ccUnseal           = uint32(tpm2.TPMCCUnseal)

	ccDictionaryAttackLockReset = uint32(0x139) // tpm2 does not have it
)

// commandName is the standard's name of a command.
func commandName(cc uint32) string {
	if name, ok := commandNames()[cc]; ok {
		return name
	}
	return fmt.Sprintf("TPM command %#x", cc)
}

func commandNames() map[uint32]string {
	return map[uint32]string{
		ccEvictControl:     "TPM2_EvictControl",
		ccCreatePrimary:    "TPM2_CreatePrimary",
		ccSequenceComplete: "TPM2_SequenceComplete",
		ccStartup:          "TPM2_Startup",
		ccShutdown:         "TPM2_Shutdown",
		ccCreate:           "TPM2_Create",
		ccHMAC:             "TPM2_HMAC",
		ccImport:           "TPM2_Import",
		ccLoad:             "TPM2_Load",
		ccRSADecrypt:       "TPM2_RSA_Decrypt",
		ccHMACStart:        "TPM2_HMAC_Start",
		ccSequenceUpdate:   "TPM2_SequenceUpdate",
		ccSign:             "TPM2_Sign",
		ccFlushContext:     "TPM2_FlushContext",
		ccReadPublic:       "TPM2_ReadPublic",
		ccStartAuthSession: "TPM2_StartAuthSession",
		ccGetCapability:    "TPM2_GetCapability",
		ccGetRandom:        "TPM2_GetRandom",
		ccEncryptDecrypt2:  "TPM2_EncryptDecrypt2",
		ccNVDefineSpace:    "TPM2_NV_DefineSpace",
		ccNVUndefineSpace:  "TPM2_NV_UndefineSpace",
		ccNVIncrement:      "TPM2_NV_Increment",
		ccNVRead:           "TPM2_NV_Read",
		ccNVReadPublic:     "TPM2_NV_ReadPublic",
		ccUnseal:           "TPM2_Unseal",

		ccDictionaryAttackLockReset: "TPM2_DictionaryAttackLockReset",

		// Sent by package identity.
		uint32(tpm2.TPMCCActivateCredential): "TPM2_ActivateCredential",
		uint32(tpm2.TPMCCCertify):            "TPM2_Certify",
		uint32(tpm2.TPMCCPCRRead):            "TPM2_PCR_Read",
		uint32(tpm2.TPMCCPolicyOR):           "TPM2_PolicyOR",
		uint32(tpm2.TPMCCPolicySecret):       "TPM2_PolicySecret",
		uint32(tpm2.TPMCCQuote):              "TPM2_Quote",
	}
}
