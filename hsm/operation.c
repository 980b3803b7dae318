#include "operation.h"

#include <string.h>

enum {
	CKA_VALUE = 0x11, CKA_SENSITIVE = 0x103, CKA_EXTRACTABLE = 0x162, CKA_VALUE_LEN = 0x161,
	CKA_WRAP_TEMPLATE = 0x40000211, CKA_UNWRAP_TEMPLATE = 0x40000212,
	CKM_AES_GCM = 0x1087, CKM_RSA_PKCS_OAEP = 9, CKM_SHA_1 = 0x220, CKG_MGF1_SHA1 = 1, CKZ_DATA_SPECIFIED = 1,
	CKR_ATTRIBUTE_SENSITIVE = 0x11, CKR_ATTRIBUTE_TYPE_INVALID = 0x12, CKR_BUFFER_TOO_SMALL = 0x150
};

#define FLAT_END ((ck_ulong)-1)

msl_place msl_places[MSL_PLACES];

static ck_byte empty[16]; /* some modules refuse NULL for data of no length */

static ck_ulong flat(ck_byte *in, ck_ulong n, ck_attribute *out, ck_ulong max)
{
	ck_ulong i = 0;
	while (n >= 2 * sizeof(ck_ulong)) {
		ck_ulong head[2], room;
		memcpy(head, in, sizeof head);
		in += sizeof head;
		n -= sizeof head;
		room = (head[1] + 7) & ~7UL;
		if (room < head[1] || room > n || i == max)
			return FLAT_END;
		out[i++] = (ck_attribute){head[0], head[1] ? in : empty, head[1]};
		in += room;
		n -= room;
	}
	return n ? FLAT_END : i;
}

int msl_expand(msl_template *t, ck_byte *in, ck_ulong n)
{
	ck_ulong i, used = 0;
	t->n = flat(in, n, t->a, MAX_ATTRIBUTES);
	if (t->n == FLAT_END)
		return 0;
	for (i = 0; i < t->n; i++) {
		ck_attribute *a = &t->a[i];
		ck_ulong m;
		if (a->type != CKA_UNWRAP_TEMPLATE && a->type != CKA_WRAP_TEMPLATE)
			continue;
		m = flat(a->value, a->len, t->nested + used, MAX_NESTED - used);
		if (m == FLAT_END)
			return 0;
		a->value = t->nested + used;
		a->len = m * sizeof(ck_attribute);
		used += m;
	}
	return 1;
}

msl_result msl_answer(ck_rv rv, int fn, ck_ulong value)
{
	return (msl_result){rv, fn, value, -1, -1, -1};
}

typedef union { ck_oaep oaep; ck_gcm gcm; } parameters;

/* A mechanism, with an initialization vector where it has one. */
static ck_mechanism mechanism(ck_ulong type, ck_byte *iv, ck_ulong ivlen, parameters *p)
{
	switch (type) {
	case CKM_RSA_PKCS_OAEP:
		p->oaep = (ck_oaep){CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, 0, 0};
		return (ck_mechanism){type, p, sizeof p->oaep};
	case CKM_AES_GCM:
		p->gcm = (ck_gcm){iv, ivlen, 8 * ivlen, 0, 0, 128};
		return (ck_mechanism){type, p, sizeof p->gcm};
	}
	return (ck_mechanism){type, ivlen ? iv : 0, ivlen};
}

/* Whether an answer says only that the module does not know an attribute. */
static int untold(ck_rv rv)
{
	return rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE || rv == CKR_BUFFER_TOO_SMALL;
}

/* A truth value that was told; MSL_UNWRITTEN where only its length was. */
static int truth(const ck_attribute *a)
{
	ck_byte b = *(ck_byte *)a->value;

	if (a->len != 1)
		return -1;
	return b == UNWRITTEN_BYTE ? MSL_UNWRITTEN : b;
}

/* Reads the attributes of a new key that decide its safety. Where a module does
 * not know the length of that type of key the whole answer counts for nothing,
 * so it is asked again without. The handle is told in every case. */
static msl_result readback(ck_functions *f, ck_ulong session, int fn, ck_ulong key)
{
	ck_attributes get;
	msl_result r = msl_answer(CKR_OK, fn, key);
	ck_byte sensitive = UNWRITTEN_BYTE, extractable = UNWRITTEN_BYTE;
	ck_ulong size = 0;
	ck_attribute a[] = {{CKA_SENSITIVE, &sensitive, 1}, {CKA_EXTRACTABLE, &extractable, 1},
		{CKA_VALUE_LEN, &size, sizeof size}};
	ck_rv rv;

	if (!key)
		return r;
	get = CALL(f, session, GetAttributeValue, ck_attributes);
	rv = get(session, key, a, 3);
	if (rv == CKR_OK && a[2].len == sizeof size)
		r.size = (long)size;
	else if (rv == CKR_OK || untold(rv)) {
		a[0].len = a[1].len = 1;
		rv = get(session, key, a, 2);
	}
	if (rv == CKR_OK) {
		r.sensitive = truth(&a[0]);
		r.extractable = truth(&a[1]);
	} else if (!untold(rv))
		return msl_answer(rv, FN_GetAttributeValue, key);
	return r;
}

msl_result msl_crypt(ck_functions *f, int init, ck_ulong session, ck_ulong key, ck_ulong type,
	ck_byte *iv, ck_ulong ivlen, ck_byte *in, ck_ulong n, ck_byte *out, ck_ulong m)
{
	parameters p;
	ck_mechanism mech = mechanism(type, iv, ivlen, &p);
	ck_rv rv;

	AT(f, session, init);
	rv = ((ck_init)f->fn[init])(session, &mech, key);
	if (rv != CKR_OK)
		return msl_answer(rv, init, 0);
	AT(f, session, init + 1);
	rv = ((ck_final)f->fn[init + 1])(session, n ? in : empty, n, out, &m);
	return msl_answer(rv, init + 1, m);
}

msl_result msl_sign_parts(ck_functions *f, ck_ulong session, ck_ulong key, ck_ulong type,
	ck_byte *in, ck_ulong n, ck_ulong part, ck_byte *out, ck_ulong m)
{
	ck_mechanism mech = {type, 0, 0};
	ck_rv rv = CALL(f, session, SignInit, ck_init)(session, &mech, key);

	if (rv != CKR_OK)
		return msl_answer(rv, FN_SignInit, 0);
	for (; n > 0; in += part, n -= part) {
		if (part > n)
			part = n;
		rv = CALL(f, session, SignUpdate, ck_update)(session, in, part);
		if (rv != CKR_OK)
			return msl_answer(rv, FN_SignUpdate, 0);
	}
	return msl_answer(CALL(f, session, SignFinal, ck_digest_final)(session, out, &m), FN_SignFinal, m);
}

msl_result msl_wrap(ck_functions *f, ck_ulong session, ck_ulong type, ck_ulong kek,
	ck_ulong key, ck_byte *iv, ck_ulong ivlen, ck_byte *out, ck_ulong m)
{
	parameters p;
	ck_mechanism mech = mechanism(type, iv, ivlen, &p);
	ck_rv rv = CALL(f, session, WrapKey, ck_wrap)(session, &mech, kek, key, out, &m);

	return msl_answer(rv, FN_WrapKey, m);
}

msl_result msl_wrap_for(ck_functions *f, ck_ulong session, ck_byte *peer, ck_ulong n,
	ck_ulong key, ck_byte *out, ck_ulong m)
{
	msl_result r = msl_create(f, session, peer, n);
	ck_ulong public = r.value;
	ck_rv rv;

	if (r.rv != CKR_OK || !public)
		return r;
	r = msl_wrap(f, session, CKM_RSA_PKCS_OAEP, public, key, 0, 0, out, m);
	rv = CALL(f, session, DestroyObject, ck_destroy)(session, public);
	if (rv != CKR_OK) /* once more: what is left dies with the session only */
		rv = CALL(f, session, DestroyObject, ck_destroy)(session, public);
	if (r.rv == CKR_OK && rv != CKR_OK)
		return msl_answer(rv, FN_DestroyObject, 0);
	return r;
}

msl_result msl_unwrap(ck_functions *f, ck_ulong session, ck_ulong type, ck_ulong kek,
	ck_byte *iv, ck_ulong ivlen, ck_byte *in, ck_ulong n, ck_byte *template, ck_ulong m)
{
	parameters p;
	ck_mechanism mech = mechanism(type, iv, ivlen, &p);
	ck_ulong key = 0;
	msl_template t;
	ck_rv rv;

	if (!msl_expand(&t, template, m))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_UnwrapKey, 0);
	rv = CALL(f, session, UnwrapKey, ck_unwrap)(session, &mech, kek, n ? in : empty, n, t.a, t.n, &key);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_UnwrapKey, 0);
	return readback(f, session, FN_UnwrapKey, key);
}

msl_result msl_reveal(ck_functions *f, ck_ulong session, ck_ulong type, ck_ulong kek,
	ck_byte *in, ck_ulong n, ck_byte *template, ck_ulong m, ck_byte *out, ck_ulong size)
{
	ck_mechanism mech = {type, 0, 0};
	ck_attribute value = {CKA_VALUE, out, size};
	ck_ulong key = 0;
	msl_template t;
	ck_rv rv, gone;

	if (!msl_expand(&t, template, m))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_UnwrapKey, 0);
	rv = CALL(f, session, UnwrapKey, ck_unwrap)(session, &mech, kek, in, n, t.a, t.n, &key);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_UnwrapKey, 0);
	rv = CALL(f, session, GetAttributeValue, ck_attributes)(session, key, &value, 1);
	gone = CALL(f, session, DestroyObject, ck_destroy)(session, key);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_GetAttributeValue, 0);
	return msl_answer(gone, FN_DestroyObject, value.len);
}

msl_result msl_generate(ck_functions *f, ck_ulong session, ck_ulong type,
	ck_byte *template, ck_ulong n, int look)
{
	ck_mechanism mech = {type, 0, 0};
	ck_ulong key = 0;
	msl_template t;
	ck_rv rv;

	if (!msl_expand(&t, template, n))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_GenerateKey, 0);
	rv = CALL(f, session, GenerateKey, ck_generate)(session, &mech, t.a, t.n, &key);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_GenerateKey, 0);
	return look ? readback(f, session, FN_GenerateKey, key) : msl_answer(rv, FN_GenerateKey, key);
}

msl_result msl_generate_pair(ck_functions *f, ck_ulong session, ck_ulong type,
	ck_byte *public, ck_ulong n, ck_byte *private, ck_ulong m, ck_ulong *pub)
{
	ck_mechanism mech = {type, 0, 0};
	ck_ulong key = 0;
	msl_template t, u;
	ck_rv rv;

	if (!msl_expand(&t, public, n) || !msl_expand(&u, private, m))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_GenerateKeyPair, 0);
	rv = CALL(f, session, GenerateKeyPair, ck_generate_pair)(session, &mech, t.a, t.n, u.a, u.n, pub, &key);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_GenerateKeyPair, 0);
	return readback(f, session, FN_GenerateKeyPair, key);
}

msl_result msl_create(ck_functions *f, ck_ulong session, ck_byte *template, ck_ulong n)
{
	ck_ulong object = 0;
	msl_template t;
	ck_rv rv;

	if (!msl_expand(&t, template, n))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_CreateObject, 0);
	rv = CALL(f, session, CreateObject, ck_create)(session, t.a, t.n, &object);
	return msl_answer(rv, FN_CreateObject, object);
}

msl_result msl_set(ck_functions *f, ck_ulong session, ck_ulong object, ck_byte *template, ck_ulong n)
{
	msl_template t;
	ck_rv rv;

	if (!msl_expand(&t, template, n))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_SetAttributeValue, 0);
	rv = t.n ? CALL(f, session, SetAttributeValue, ck_attributes)(session, object, t.a, t.n) : CKR_OK;
	if (rv != CKR_OK)
		return msl_answer(rv, FN_SetAttributeValue, 0);
	return readback(f, session, FN_GetAttributeValue, object);
}

msl_result msl_copy(ck_functions *f, ck_ulong session, ck_ulong object, ck_byte *template, ck_ulong n)
{
	ck_ulong copy = 0;
	msl_template t;
	ck_rv rv;

	if (!msl_expand(&t, template, n))
		return msl_answer(CKR_ARGUMENTS_BAD, FN_CopyObject, 0);
	rv = CALL(f, session, CopyObject, ck_copy)(session, object, t.a, t.n, &copy);
	return msl_answer(rv, FN_CopyObject, copy);
}

msl_result msl_destroy(ck_functions *f, ck_ulong session, ck_ulong object)
{
	return msl_answer(CALL(f, session, DestroyObject, ck_destroy)(session, object), FN_DestroyObject, 0);
}

/* Reads an attribute that is a template of CK_BBOOLs and CK_ULONGs: first the
 * types and lengths, then the values. */
msl_result msl_nested(ck_functions *f, ck_ulong session, ck_ulong object, ck_ulong type,
	ck_ulong *types, ck_ulong *values, ck_ulong n)
{
	ck_attributes get = CALL(f, session, GetAttributeValue, ck_attributes);
	ck_attribute nested[MAX_NESTED], outer = {type, nested, sizeof nested};
	ck_ulong i, count;
	ck_rv rv;

	memset(nested, 0, sizeof nested);
	rv = get(session, object, &outer, 1);
	if (rv != CKR_OK)
		return msl_answer(rv, FN_GetAttributeValue, 0);
	if (outer.len == (ck_ulong)-1)
		return msl_answer(CKR_OK, FN_GetAttributeValue, 0);
	count = outer.len / sizeof(ck_attribute);
	if (count > MAX_NESTED || count > n)
		return msl_answer(CKR_ARGUMENTS_BAD, FN_GetAttributeValue, 0);
	for (i = 0; i < count; i++) {
		if (nested[i].len > sizeof(ck_ulong))
			return msl_answer(CKR_ARGUMENTS_BAD, FN_GetAttributeValue, 0);
		types[i] = nested[i].type;
		values[i] = 0;
		nested[i].value = &values[i];
	}
	if (count > 0)
		rv = get(session, object, &outer, 1);
	return msl_answer(rv, FN_GetAttributeValue, count);
}

msl_result msl_digest_key(ck_functions *f, ck_ulong session, ck_ulong type, ck_ulong key,
	ck_byte *out, ck_ulong m)
{
	ck_mechanism mech = {type, 0, 0};
	ck_rv rv = CALL(f, session, DigestInit, ck_digest_init)(session, &mech), end;

	if (rv != CKR_OK)
		return msl_answer(rv, FN_DigestInit, 0);
	rv = CALL(f, session, DigestKey, ck_digest_key)(session, key);
	end = CALL(f, session, DigestFinal, ck_digest_final)(session, out, &m); /* ends it in any case */
	if (rv != CKR_OK)
		return msl_answer(rv, FN_DigestKey, 0);
	return msl_answer(end, FN_DigestFinal, m);
}

msl_result msl_random(ck_functions *f, ck_ulong session, ck_byte *out, ck_ulong n)
{
	return msl_answer(CALL(f, session, GenerateRandom, ck_generate_random)(session, out, n), FN_GenerateRandom, n);
}
