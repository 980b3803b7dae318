/* The part of the PKCS #11 v2.40 binary interface that this package calls
 * itself, for platforms with the natural structure alignment (all but
 * Windows). Names and order are those of the specification. */
#ifndef MSL_CRYPTOKI_H
#define MSL_CRYPTOKI_H

typedef unsigned char ck_byte;
typedef unsigned long ck_ulong;
typedef ck_ulong ck_rv;

typedef struct { ck_ulong type; void *value; ck_ulong len; } ck_attribute;
typedef struct { ck_ulong type; void *param; ck_ulong len; } ck_mechanism;
typedef struct { ck_ulong hash, mgf, source; void *data; ck_ulong len; } ck_oaep;
typedef struct { ck_byte major, minor; } ck_version;
typedef struct { void *create, *destroy, *lock, *unlock; ck_ulong flags; void *reserved; } ck_initialize_args;
typedef struct { ck_ulong slot, state, flags, error; } ck_session_info;
typedef struct {
	ck_byte description[64], manufacturer[32];
	ck_ulong flags;
	ck_version hardware, firmware;
} ck_slot_info;
typedef struct {
	ck_byte label[32], manufacturer[32], model[16], serial[16];
	ck_ulong flags, max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin,
		total_public, free_public, total_private, free_private;
	ck_version hardware, firmware;
	ck_byte time[16];
} ck_token_info;

typedef struct { ck_byte *iv; ck_ulong ivlen, ivbits; ck_byte *aad; ck_ulong aadlen, tagbits; } ck_gcm;
typedef struct { ck_ulong min, max, flags; } ck_mechanism_info;

enum { CKF_OS_LOCKING_OK = 2, CKF_RW_SESSION = 2, CKF_SERIAL_SESSION = 4,
	CKF_WRAP = 0x20000, CKF_UNWRAP = 0x40000 };

/* Places of the called functions in CK_FUNCTION_LIST, counted from 0. */
enum {
	FN_Initialize = 0, FN_Finalize = 1, FN_GetSlotList = 4, FN_GetSlotInfo = 5, FN_GetTokenInfo = 6,
	FN_GetMechanismInfo = 8, FN_InitToken = 9, FN_InitPIN = 10, FN_SetPIN = 11, FN_OpenSession = 12, FN_CloseSession = 13,
	FN_GetSessionInfo = 15, FN_Login = 18, FN_Logout = 19, FN_CreateObject = 20,
	FN_CopyObject = 21, FN_DestroyObject = 22,
	FN_GetAttributeValue = 24, FN_SetAttributeValue = 25, FN_FindObjectsInit = 26,
	FN_FindObjects = 27, FN_FindObjectsFinal = 28, FN_EncryptInit = 29, FN_Encrypt = 30,
	FN_DecryptInit = 33, FN_Decrypt = 34, FN_DigestInit = 37, FN_DigestKey = 40,
	FN_DigestFinal = 41, FN_SignInit = 42, FN_Sign = 43, FN_SignUpdate = 44, FN_SignFinal = 45,
	FN_GenerateKey = 58, FN_GenerateKeyPair = 59, FN_WrapKey = 60, FN_UnwrapKey = 61,
	FN_GenerateRandom = 64,
	FN_count = 68
};

typedef struct { ck_version version; void *fn[FN_count]; } ck_functions;

typedef ck_rv (*ck_get_function_list)(ck_functions **);
typedef ck_rv (*ck_initialize)(void *);
typedef ck_rv (*ck_get_slot_list)(ck_byte present, ck_ulong *list, ck_ulong *n);
typedef ck_rv (*ck_get_slot_info)(ck_ulong slot, ck_slot_info *);
typedef ck_rv (*ck_get_token_info)(ck_ulong slot, ck_token_info *);
typedef ck_rv (*ck_get_mechanism_info)(ck_ulong slot, ck_ulong type, ck_mechanism_info *);
typedef ck_rv (*ck_open_session)(ck_ulong slot, ck_ulong flags, void *, void *, ck_ulong *session);
typedef ck_rv (*ck_session)(ck_ulong session);
typedef ck_rv (*ck_get_session_info)(ck_ulong session, ck_session_info *);
typedef ck_rv (*ck_find_init)(ck_ulong session, ck_attribute *, ck_ulong n);
typedef ck_rv (*ck_find)(ck_ulong session, ck_ulong *objects, ck_ulong max, ck_ulong *n);
typedef ck_rv (*ck_init_token)(ck_ulong slot, ck_byte *pin, ck_ulong n, ck_byte *label);
typedef ck_rv (*ck_init_pin)(ck_ulong session, ck_byte *pin, ck_ulong n);
typedef ck_rv (*ck_set_pin)(ck_ulong session, ck_byte *old, ck_ulong n, ck_byte *pin, ck_ulong m);
typedef ck_rv (*ck_login)(ck_ulong session, ck_ulong user, ck_byte *pin, ck_ulong n);
typedef ck_rv (*ck_create)(ck_ulong session, ck_attribute *, ck_ulong n, ck_ulong *object);
typedef ck_rv (*ck_copy)(ck_ulong session, ck_ulong object, ck_attribute *, ck_ulong n, ck_ulong *copy);
typedef ck_rv (*ck_destroy)(ck_ulong session, ck_ulong object);
typedef ck_rv (*ck_attributes)(ck_ulong session, ck_ulong object, ck_attribute *, ck_ulong n);
typedef ck_rv (*ck_init)(ck_ulong session, ck_mechanism *, ck_ulong key);
typedef ck_rv (*ck_final)(ck_ulong session, ck_byte *in, ck_ulong n, ck_byte *out, ck_ulong *m);
typedef ck_rv (*ck_update)(ck_ulong session, ck_byte *in, ck_ulong n);
typedef ck_rv (*ck_digest_init)(ck_ulong session, ck_mechanism *);
typedef ck_rv (*ck_digest_key)(ck_ulong session, ck_ulong key);
typedef ck_rv (*ck_digest_final)(ck_ulong session, ck_byte *out, ck_ulong *m);
typedef ck_rv (*ck_generate)(ck_ulong session, ck_mechanism *, ck_attribute *, ck_ulong n,
	ck_ulong *key);
typedef ck_rv (*ck_generate_pair)(ck_ulong session, ck_mechanism *, ck_attribute *public,
	ck_ulong n, ck_attribute *private, ck_ulong m, ck_ulong *pub, ck_ulong *priv);
typedef ck_rv (*ck_wrap)(ck_ulong session, ck_mechanism *, ck_ulong kek, ck_ulong key,
	ck_byte *out, ck_ulong *n);
typedef ck_rv (*ck_generate_random)(ck_ulong session, ck_byte *out, ck_ulong n);
typedef ck_rv (*ck_unwrap)(ck_ulong session, ck_mechanism *, ck_ulong kek, ck_byte *in,
	ck_ulong n, ck_attribute *, ck_ulong m, ck_ulong *key);

#endif
