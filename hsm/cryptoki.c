#include "operation.h"

#include <string.h>

enum { CKA_CLASS = 0, CKA_KEY_TYPE = 0x100, CKA_VALUE_LEN = 0x161, CKR_TOKEN_WRITE_PROTECTED = 0xe2 };

/* What is not on the path of a message: one C_ function each, so that whatever
 * a module answers can be judged in Go before the next call. Where CKR_OK without
 * anything written would look like an answer, UNWRITTEN is there before the call. */

/* A text for the module goes where it is reserved for one: NSS has its
 * LibraryParameters there. */
msl_result msl_initialize(ck_functions *f, char *text)
{
	ck_initialize_args args = {0, 0, 0, 0, CKF_OS_LOCKING_OK, text};

	return msl_answer(CALL(f, 0, Initialize, ck_initialize)(&args), FN_Initialize, 0);
}

msl_result msl_finalize(ck_functions *f)
{
	return msl_answer(CALL(f, 0, Finalize, ck_initialize)(0), FN_Finalize, 0);
}

/* Without a list it asks how many there are, which is when modules look for new
 * ones (PKCS #11 v2.40, C_GetSlotList). */
msl_result msl_slots(ck_functions *f, ck_byte present, ck_ulong *list, ck_ulong n)
{
	ck_rv rv;

	if (!list)
		n = UNWRITTEN;
	rv = CALL(f, 0, GetSlotList, ck_get_slot_list)(present, list, &n);

	return msl_answer(rv, FN_GetSlotList, n);
}

msl_result msl_slot_info(ck_functions *f, ck_ulong slot, ck_slot_info *info)
{
	memset(info, 0, sizeof *info);
	info->flags = UNWRITTEN;
	return msl_answer(CALL(f, 0, GetSlotInfo, ck_get_slot_info)(slot, info), FN_GetSlotInfo, 0);
}

msl_result msl_token_info(ck_functions *f, ck_ulong slot, ck_token_info *info)
{
	memset(info, 0, sizeof *info);
	info->flags = UNWRITTEN;
	return msl_answer(CALL(f, 0, GetTokenInfo, ck_get_token_info)(slot, info), FN_GetTokenInfo, 0);
}

/* The flags of a mechanism. */
msl_result msl_mechanism_flags(ck_functions *f, ck_ulong slot, ck_ulong type)
{
	ck_mechanism_info info;
	ck_rv rv;

	memset(&info, 0, sizeof info);
	info.flags = UNWRITTEN_FLAGS;
	rv = CALL(f, 0, GetMechanismInfo, ck_get_mechanism_info)(slot, type, &info);
	return msl_answer(rv, FN_GetMechanismInfo, info.flags == UNWRITTEN_FLAGS ? UNWRITTEN : info.flags);
}

/* A session that may write, unless the token is read-only: objects of the session
 * too are refused by some modules in another one. */
msl_result msl_open_session(ck_functions *f, ck_ulong slot)
{
	ck_open_session open = CALL(f, 0, OpenSession, ck_open_session);
	ck_ulong session = 0;
	ck_rv rv = open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, 0, 0, &session);

	if (rv == CKR_TOKEN_WRITE_PROTECTED)
		rv = open(slot, CKF_SERIAL_SESSION, 0, 0, &session);
	return msl_answer(rv, FN_OpenSession, session);
}

msl_result msl_close_session(ck_functions *f, ck_ulong session)
{
	return msl_answer(CALL(f, session, CloseSession, ck_session)(session), FN_CloseSession, 0);
}

msl_result msl_session_state(ck_functions *f, ck_ulong session)
{
	ck_session_info info;
	ck_rv rv;

	memset(&info, 0, sizeof info);
	info.state = UNWRITTEN;
	rv = CALL(f, session, GetSessionInfo, ck_get_session_info)(session, &info);
	return msl_answer(rv, FN_GetSessionInfo, info.state);
}

msl_result msl_init_token(ck_functions *f, ck_ulong slot, ck_byte *pin, ck_ulong n, ck_byte *label)
{
	return msl_answer(CALL(f, 0, InitToken, ck_init_token)(slot, pin, n, label), FN_InitToken, 0);
}

msl_result msl_init_pin(ck_functions *f, ck_ulong session, ck_byte *pin, ck_ulong n)
{
	return msl_answer(CALL(f, session, InitPIN, ck_init_pin)(session, pin, n), FN_InitPIN, 0);
}

msl_result msl_set_pin(ck_functions *f, ck_ulong session, ck_byte *old, ck_ulong n, ck_byte *pin, ck_ulong m)
{
	return msl_answer(CALL(f, session, SetPIN, ck_set_pin)(session, old, n, pin, m), FN_SetPIN, 0);
}

msl_result msl_login(ck_functions *f, ck_ulong session, ck_ulong user, ck_byte *pin, ck_ulong n)
{
	return msl_answer(CALL(f, session, Login, ck_login)(session, user, pin, n), FN_Login, 0);
}

msl_result msl_logout(ck_functions *f, ck_ulong session)
{
	return msl_answer(CALL(f, session, Logout, ck_session)(session), FN_Logout, 0);
}

msl_result msl_find_init(ck_functions *f, ck_ulong session, ck_byte *template, ck_ulong n)
{
	msl_template t;

	if (!msl_expand(&t, template, n))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_FindObjectsInit, 0);
	return msl_answer(CALL(f, session, FindObjectsInit, ck_find_init)(session, t.a, t.n), FN_FindObjectsInit, 0);
}

msl_result msl_find(ck_functions *f, ck_ulong session, ck_ulong *objects, ck_ulong max)
{
	ck_ulong n = UNWRITTEN;
	ck_rv rv = CALL(f, session, FindObjects, ck_find)(session, objects, max, &n);

	return msl_answer(rv, FN_FindObjects, n);
}

msl_result msl_find_final(ck_functions *f, ck_ulong session)
{
	return msl_answer(CALL(f, session, FindObjectsFinal, ck_session)(session), FN_FindObjectsFinal, 0);
}

/* Whether an attribute is a CK_ULONG. NSS fills no longer buffer with one. */
static int is_number(ck_ulong type)
{
	return type == CKA_CLASS || type == CKA_KEY_TYPE || type == CKA_VALUE_LEN;
}

/* Reads n attributes of an object, each into its own piece of values. */
msl_result msl_attributes(ck_functions *f, ck_ulong session, ck_ulong object, ck_ulong *types,
	ck_ulong *lengths, ck_ulong n, ck_byte *values, ck_ulong piece)
{
	ck_attribute a[MAX_ATTRIBUTES];
	ck_ulong i, written = 0;
	ck_rv rv;

	if (n > MAX_ATTRIBUTES)
		return msl_answer(CKR_ARGUMENTS_BAD, FN_GetAttributeValue, 0);
	for (i = 0; i < n; i++)
		a[i] = (ck_attribute){types[i], values + i * piece, is_number(types[i]) ? sizeof(ck_ulong) : piece};
	memset(values, UNWRITTEN_BYTE, n * piece);
	rv = CALL(f, session, GetAttributeValue, ck_attributes)(session, object, a, n);
	for (i = 0; i < n; i++) {
		lengths[i] = a[i].len;
		written += a[i].len != (is_number(types[i]) ? sizeof(ck_ulong) : piece) || *(values + i * piece) != UNWRITTEN_BYTE;
	}
	return msl_answer(rv, FN_GetAttributeValue, written ? 0 : UNWRITTEN);
}
