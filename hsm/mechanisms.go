package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// MechanismName is the name of a mechanism that this package uses, such as CKM_AES_CBC, or
// the number of any other.
func MechanismName(m uint) string {
	if name := mechanismsByName[m]; name != "" {
		return name
	}
	return fmt.Sprintf("CKM 0x%08X", m)
}

// mechanismNames are the names of a CKA_ALLOWED_MECHANISMS.
func mechanismNames(b []byte) []string {
	var names []string
	for ; len(b) >= word; b = b[word:] {
		m, _ := number(b[:word])
		names = append(names, MechanismName(m))
	}
	return names
}

var mechanismsByName = map[uint]string{
	ckmKeyWrap: "CKM_AES_KEY_WRAP", ckmKeyWrapKWP: "CKM_AES_KEY_WRAP_KWP",
	ckmKeyWrapPKCS7: "CKM_AES_KEY_WRAP_PKCS7", ckmKeyWrapLuna: "CKM_AES_KW (Luna)", ckmKeyWrapKWPLuna: "CKM_AES_KWP (Luna)", ckmKeyWrapCloud: "CKM_CLOUDHSM_AES_KEY_WRAP_NO_PAD",
	pkcs11.CKM_AES_CBC:                  "CKM_AES_CBC",
	pkcs11.CKM_AES_CBC_PAD:              "CKM_AES_CBC_PAD",
	pkcs11.CKM_AES_CMAC:                 "CKM_AES_CMAC",
	pkcs11.CKM_AES_CTR:                  "CKM_AES_CTR",
	pkcs11.CKM_AES_ECB:                  "CKM_AES_ECB",
	pkcs11.CKM_AES_GCM:                  "CKM_AES_GCM",
	pkcs11.CKM_AES_CCM:                  "CKM_AES_CCM",
	pkcs11.CKM_AES_KEY_GEN:              "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_KEY_WRAP_PAD:         "CKM_AES_KEY_WRAP_PAD",
	pkcs11.CKM_AES_MAC:                  "CKM_AES_MAC",
	pkcs11.CKM_AES_CBC_ENCRYPT_DATA:     "CKM_AES_CBC_ENCRYPT_DATA",
	pkcs11.CKM_AES_ECB_ENCRYPT_DATA:     "CKM_AES_ECB_ENCRYPT_DATA",
	pkcs11.CKM_SHA_1:                    "CKM_SHA_1",
	pkcs11.CKM_SHA_1_HMAC:               "CKM_SHA_1_HMAC",
	pkcs11.CKM_SHA256:                   "CKM_SHA256",
	pkcs11.CKM_SHA256_HMAC:              "CKM_SHA256_HMAC",
	pkcs11.CKM_SHA256_KEY_DERIVATION:    "CKM_SHA256_KEY_DERIVATION",
	pkcs11.CKM_SHA384:                   "CKM_SHA384",
	pkcs11.CKM_SHA384_HMAC:              "CKM_SHA384_HMAC",
	pkcs11.CKM_SHA512:                   "CKM_SHA512",
	pkcs11.CKM_SHA512_HMAC:              "CKM_SHA512_HMAC",
	pkcs11.CKM_GENERIC_SECRET_KEY_GEN:   "CKM_GENERIC_SECRET_KEY_GEN",
	pkcs11.CKM_CONCATENATE_BASE_AND_KEY: "CKM_CONCATENATE_BASE_AND_KEY",
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN:    "CKM_RSA_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_X9_31_KEY_PAIR_GEN:   "CKM_RSA_X9_31_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_PKCS:                 "CKM_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_OAEP:            "CKM_RSA_PKCS_OAEP",
	pkcs11.CKM_RSA_PKCS_PSS:             "CKM_RSA_PKCS_PSS",
	pkcs11.CKM_RSA_X_509:                "CKM_RSA_X_509",
	pkcs11.CKM_RSA_AES_KEY_WRAP:         "CKM_RSA_AES_KEY_WRAP",
	pkcs11.CKM_SHA1_RSA_PKCS:            "CKM_SHA1_RSA_PKCS",
	pkcs11.CKM_SHA256_RSA_PKCS:          "CKM_SHA256_RSA_PKCS",
	pkcs11.CKM_SHA384_RSA_PKCS:          "CKM_SHA384_RSA_PKCS",
	pkcs11.CKM_SHA512_RSA_PKCS:          "CKM_SHA512_RSA_PKCS",
	pkcs11.CKM_SHA256_RSA_PKCS_PSS:      "CKM_SHA256_RSA_PKCS_PSS",
	pkcs11.CKM_SHA384_RSA_PKCS_PSS:      "CKM_SHA384_RSA_PKCS_PSS",
	pkcs11.CKM_SHA512_RSA_PKCS_PSS:      "CKM_SHA512_RSA_PKCS_PSS",
	pkcs11.CKM_EC_KEY_PAIR_GEN:          "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                    "CKM_ECDSA",
	pkcs11.CKM_ECDSA_SHA1:               "CKM_ECDSA_SHA1",
	pkcs11.CKM_ECDSA_SHA256:             "CKM_ECDSA_SHA256",
	pkcs11.CKM_ECDSA_SHA384:             "CKM_ECDSA_SHA384",
	pkcs11.CKM_ECDSA_SHA512:             "CKM_ECDSA_SHA512",
	pkcs11.CKM_ECDH1_DERIVE:             "CKM_ECDH1_DERIVE",
	pkcs11.CKM_ECDH1_COFACTOR_DERIVE:    "CKM_ECDH1_COFACTOR_DERIVE",
	pkcs11.CKM_ECMQV_DERIVE:             "CKM_ECMQV_DERIVE",
	pkcs11.CKM_DH_PKCS_KEY_PAIR_GEN:     "CKM_DH_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_DH_PKCS_DERIVE:           "CKM_DH_PKCS_DERIVE",
}
