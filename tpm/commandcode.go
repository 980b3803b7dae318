package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// The commands that this package puts together or looks for (TPM 2.0 Library,
// Part 2, clause 6.5.2).
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
)

// commandName is the name that the standard gives to a command.
func commandName(cc uint32) string {
	switch cc {
	case ccEvictControl:
		return "TPM2_EvictControl"
	case ccCreatePrimary:
		return "TPM2_CreatePrimary"
	case ccSequenceComplete:
		return "TPM2_SequenceComplete"
	case ccStartup:
		return "TPM2_Startup"
	case ccShutdown:
		return "TPM2_Shutdown"
	case ccCreate:
		return "TPM2_Create"
	case ccHMAC:
		return "TPM2_HMAC"
	case ccImport:
		return "TPM2_Import"
	case ccLoad:
		return "TPM2_Load"
	case ccRSADecrypt:
		return "TPM2_RSA_Decrypt"
	case ccHMACStart:
		return "TPM2_HMAC_Start"
	case ccSequenceUpdate:
		return "TPM2_SequenceUpdate"
	case ccSign:
		return "TPM2_Sign"
	case ccFlushContext:
		return "TPM2_FlushContext"
	case ccReadPublic:
		return "TPM2_ReadPublic"
	case ccStartAuthSession:
		return "TPM2_StartAuthSession"
	case ccGetCapability:
		return "TPM2_GetCapability"
	case ccGetRandom:
		return "TPM2_GetRandom"
	case ccEncryptDecrypt2:
		return "TPM2_EncryptDecrypt2"
	case ccNVDefineSpace:
		return "TPM2_NV_DefineSpace"
	case ccNVUndefineSpace:
		return "TPM2_NV_UndefineSpace"
	case ccNVIncrement:
		return "TPM2_NV_Increment"
	case ccNVRead:
		return "TPM2_NV_Read"
	case ccNVReadPublic:
		return "TPM2_NV_ReadPublic"
	}
	return fmt.Sprintf("TPM command %#x", cc)
}
