/* The part of the PKCS #11 v2.40 binary interface that the module needs, for
 * platforms with the natural structure alignment (all but Windows). Names and
 * order are those of the specification. Every argument but one CK_BBOOL is as
 * wide as a CK_ULONG there, so that arguments are passed on as words. */
#ifndef HSMTEST_CRYPTOKI_H
#define HSMTEST_CRYPTOKI_H

typedef unsigned char ck_byte;
typedef unsigned long word; /* CK_ULONG, CK_RV, a handle or a pointer */

typedef struct { word type; void *value; word len; } ck_attribute;
typedef struct { word type; void *param; word len; } ck_mechanism;

/* The functions in the order of CK_FUNCTION_LIST, how many arguments each has,
 * and what they are:
 *   l slot             s session            o object or key
 *   m mechanism        k mechanism type     t template, followed by its length
 *   b data, followed by its length          # where a length or count is told
 *   h where a new handle is told            - anything else */
#define FUNCTIONS(X, list) \
	X(list, Initialize, 1, "-") X(list, Finalize, 1, "-") X(list, GetInfo, 1, "-") \
	X(list, GetFunctionList, 1, "-") X(list, GetSlotList, 3, "--#") \
	X(list, GetSlotInfo, 2, "l-") X(list, GetTokenInfo, 2, "l-") \
	X(list, GetMechanismList, 3, "l-#") X(list, GetMechanismInfo, 3, "lk-") \
	X(list, InitToken, 4, "l---") X(list, InitPIN, 3, "s--") X(list, SetPIN, 5, "s----") \
	X(list, OpenSession, 5, "l---h") X(list, CloseSession, 1, "s") \
	X(list, CloseAllSessions, 1, "l") X(list, GetSessionInfo, 2, "s-") \
	X(list, GetOperationState, 3, "s-#") X(list, SetOperationState, 5, "s--oo") \
	X(list, Login, 4, "s---") X(list, Logout, 1, "s") X(list, CreateObject, 4, "st-h") \
	X(list, CopyObject, 5, "sot-h") X(list, DestroyObject, 2, "so") \
	X(list, GetObjectSize, 3, "so#") X(list, GetAttributeValue, 4, "sot-") \
	X(list, SetAttributeValue, 4, "sot-") X(list, FindObjectsInit, 3, "st-") \
	X(list, FindObjects, 4, "s--#") X(list, FindObjectsFinal, 1, "s") \
	X(list, EncryptInit, 3, "smo") X(list, Encrypt, 5, "sb--#") \
	X(list, EncryptUpdate, 5, "sb--#") X(list, EncryptFinal, 3, "s-#") \
	X(list, DecryptInit, 3, "smo") X(list, Decrypt, 5, "sb--#") \
	X(list, DecryptUpdate, 5, "sb--#") X(list, DecryptFinal, 3, "s-#") \
	X(list, DigestInit, 2, "sm") X(list, Digest, 5, "sb--#") X(list, DigestUpdate, 3, "sb-") \
	X(list, DigestKey, 2, "so") X(list, DigestFinal, 3, "s-#") X(list, SignInit, 3, "smo") \
	X(list, Sign, 5, "sb--#") X(list, SignUpdate, 3, "sb-") X(list, SignFinal, 3, "s-#") \
	X(list, SignRecoverInit, 3, "smo") X(list, SignRecover, 5, "sb--#") \
	X(list, VerifyInit, 3, "smo") X(list, Verify, 5, "sb---") X(list, VerifyUpdate, 3, "sb-") \
	X(list, VerifyFinal, 3, "s--") X(list, VerifyRecoverInit, 3, "smo") \
	X(list, VerifyRecover, 5, "sb--#") X(list, DigestEncryptUpdate, 5, "sb--#") \
	X(list, DecryptDigestUpdate, 5, "sb--#") X(list, SignEncryptUpdate, 5, "sb--#") \
	X(list, DecryptVerifyUpdate, 5, "sb--#") X(list, GenerateKey, 5, "smt-h") \
	X(list, GenerateKeyPair, 8, "smt-t-hh") X(list, WrapKey, 6, "smoo-#") \
	X(list, UnwrapKey, 8, "smo--t-h") X(list, DeriveKey, 6, "smot-h") \
	X(list, SeedRandom, 3, "sb-") X(list, GenerateRandom, 3, "s--") \
	X(list, GetFunctionStatus, 1, "s") X(list, CancelFunction, 1, "s") \
	X(list, WaitForSlotEvent, 3, "---")

#define NUMBER(list, name, arity, roles) FN_##name,
enum { FUNCTIONS(NUMBER, 0) FN_count };
#undef NUMBER

typedef struct { struct { ck_byte major, minor; } version; void *fn[FN_count]; } ck_functions;

typedef struct { ck_byte label[32], maker[32], model[16], serial[16]; word flags,
	max_sessions, sessions, max_rw, rw, max_pin, min_pin, memory[4];
	ck_byte versions[4], time[16]; } ck_token_info;
typedef struct { ck_byte description[64], maker[32]; word flags;
	ck_byte versions[4]; } ck_slot_info;
typedef struct { word slot, state, flags, error; } ck_session_info;
typedef struct { word min_key, max_key, flags; } ck_mechanism_info;

enum {
	CKR_OK = 0, CKR_SLOT_ID_INVALID = 3, CKR_GENERAL_ERROR = 5, CKR_FUNCTION_FAILED = 6,
	CKR_ARGUMENTS_BAD = 7, CKR_ATTRIBUTE_SENSITIVE = 0x11, CKR_ATTRIBUTE_TYPE_INVALID = 0x12,
	CKR_DATA_LEN_RANGE = 0x21, CKR_DEVICE_REMOVED = 0x32, CKR_MECHANISM_INVALID = 0x70,
	CKR_OBJECT_HANDLE_INVALID = 0x82, CKR_SESSION_COUNT = 0xb1, CKR_SESSION_HANDLE_INVALID = 0xb3,
	CKR_TEMPLATE_INCONSISTENT = 0xd1, CKR_TOKEN_NOT_PRESENT = 0xe0, CKR_WRAPPED_KEY_INVALID = 0x110, CKR_BUFFER_TOO_SMALL = 0x150,
	CKR_CRYPTOKI_NOT_INITIALIZED = 0x190, CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191,
	CKA_TOKEN = 1, CKA_VALUE = 0x11, CKA_SENSITIVE = 0x103, CKA_EXTRACTABLE = 0x162,
	CKA_VALUE_LEN = 0x161, CKA_MODIFIABLE = 0x170, CKA_COPYABLE = 0x171, CKA_DESTROYABLE = 0x172,
	CKA_WRAP_WITH_TRUSTED = 0x210, CKA_TRUSTED = 0x86, CKF_TOKEN_PRESENT = 1,
	CKF_RW_SESSION = 2, CKF_WRITE_PROTECTED = 2, CKR_TOKEN_WRITE_PROTECTED = 0xe2
};

#define UNAVAILABLE (~0UL) /* CK_UNAVAILABLE_INFORMATION */

#endif
