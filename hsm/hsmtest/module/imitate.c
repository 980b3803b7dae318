/* Mechanisms that the real module does not have, imitated by one that it has. What is
 * wrapped is longer then: it ends with the beginning of the initialization vector, by which
 * another vector is refused. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <stdlib.h>
#include <string.h>

enum { CKA_ALLOWED_MECHANISMS = 0x40000600, MAX_TEMPLATE = 64, MAX_LIST = 64, CKM_AES_GCM = 0x1087 };

typedef struct { ck_byte *iv; word ivlen; } gcm; /* CK_GCM_PARAMS begins so */

/* The rule that imitates a mechanism, or 0. */
static const rule *imitation(const call *c, word type)
{
	int i;

	for (i = 0; i < c->n; i++)
		if (c->hit[i]->does & DOES_IMITATE && in(&c->hit[i]->mechanisms, type))
			return c->hit[i];
	return 0;
}

/* The bytes at the end of what is wrapped. */
static void filler(const rule *r, const ck_byte *iv, word n, ck_byte *to)
{
	memset(to, 0, r->pad);
	if (iv)
		memcpy(to, iv, n < r->pad ? n : r->pad);
}

static ck_byte *vector(const ck_mechanism *m, word *n)
{
	const gcm *p = m->param;

	*n = m->len;
	if (m->type != CKM_AES_GCM || !p)
		return m->param;
	*n = p->ivlen;
	return p->iv;
}

static void draw(ck_byte *iv, word n)
{
	word i;

	for (i = 0; i < n; i++)
		iv[i] = (ck_byte)rand();
}

static word wrap(call *c, const rule *r)
{
	ck_mechanism real = {r->as, 0, 0}, *asked = (ck_mechanism *)c->a[1];
	word n, *len = (word *)c->a[5], room = *len, rv;
	ck_byte *iv = vector(asked, &n), *out = (ck_byte *)c->a[4];

	if (r->how & DRAWS_IV && iv)
		draw(iv, n);
	c->a[1] = (word)&real;
	rv = forward(c);
	c->a[1] = (word)asked;
	if (rv != CKR_OK)
		return rv;
	*len += r->pad;
	if (out && *len > room)
		return CKR_BUFFER_TOO_SMALL;
	if (out)
		filler(r, iv, n, out + *len - r->pad);
	return CKR_OK;
}

static word unwrap(call *c, const rule *r)
{
	ck_mechanism real = {r->as, 0, 0}, *asked = (ck_mechanism *)c->a[1];
	word n, rv, len = c->a[4];
	ck_byte end[16], *iv = vector(asked, &n), *in = (ck_byte *)c->a[3];

	filler(r, iv, n, end);
	if (len < r->pad || memcmp(in + len - r->pad, end, r->pad))
		return CKR_WRAPPED_KEY_INVALID;
	c->a[1] = (word)&real;
	c->a[4] -= r->pad;
	rv = forward_known(c);
	c->a[1] = (word)asked;
	c->a[4] = len;
	return rv;
}

/* Adds what stands behind to a list of mechanisms. */
static word behind(const call *c, const ck_attribute *t, word *to)
{
	word i, n = t->len / sizeof(word), all = n;

	memcpy(to, t->value, t->len);
	for (i = 0; i < n; i++)
		if (imitation(c, to[i]))
			to[all++] = imitation(c, to[i])->as;
	return all * sizeof(word);
}

/* Makes an object whose CKA_ALLOWED_MECHANISMS names what stands behind, too. */
static word make(call *c)
{
	ck_attribute to[MAX_TEMPLATE], *was;
	word allowed[2 * MAX_LIST], i, rv, n;
	int at = place(c, 't', place(c, 't', 1) >= 0);

	was = (ck_attribute *)c->a[at];
	n = c->a[at + 1];
	if (n > MAX_TEMPLATE)
		return CKR_ARGUMENTS_BAD;
	for (i = 0; i < n; i++) {
		to[i] = was[i];
		if (to[i].type != CKA_ALLOWED_MECHANISMS || to[i].len > MAX_LIST * sizeof(word))
			continue;
		to[i].len = behind(c, &was[i], allowed);
		to[i].value = allowed;
	}
	c->a[at] = (word)to;
	rv = forward_known(c);
	c->a[at] = (word)was;
	return rv;
}

/* Takes it out again. */
static void hide(const call *c, ck_attribute *t)
{
	word i, k, n = t->len / sizeof(word), *v = t->value;

	for (i = 0; i < n; i++)
		for (k = 0; imitation(c, v[i]) && k < n; k++)
			if (v[k] == imitation(c, v[i])->as) {
				memmove(v + k, v + k + 1, (--n - k) * sizeof *v);
				break;
			}
	t->len = n * sizeof *v;
}

static word read_allowed(call *c)
{
	ck_attribute *t = (ck_attribute *)c->a[2];
	word i, rv = forward_known(c);

	for (i = 0; t && i < c->a[3]; i++)
		if (t[i].type == CKA_ALLOWED_MECHANISMS && t[i].value && t[i].len != UNAVAILABLE)
			hide(c, &t[i]);
	return rv;
}

/* Lists what is imitated, too. */
static word list(call *c)
{
	word all[512], n = 512, *to = (word *)c->a[1], *count = (word *)c->a[2], room = *count, rv;
	int i;

	c->a[1] = (word)all;
	c->a[2] = (word)&n;
	rv = forward_known(c);
	c->a[1] = (word)to;
	c->a[2] = (word)count;
	if (rv != CKR_OK)
		return rv;
	for (i = 0; i < c->n && n < 512; i++)
		if (c->hit[i]->does & DOES_IMITATE)
			all[n++] = c->hit[i]->mechanisms.v[0];
	*count = n;
	if (to && n > room)
		return CKR_BUFFER_TOO_SMALL;
	if (to)
		memcpy(to, all, n * sizeof *all);
	return CKR_OK;
}

/* Makes a call that names a mechanism which is imitated, or tells of one. */
word imitate(call *c)
{
	const rule *r = 0;
	word named, rv;

	if (c->fn == FN_WrapKey || c->fn == FN_UnwrapKey)
		r = imitation(c, ((ck_mechanism *)c->a[1])->type);
	if (c->fn == FN_WrapKey && r)
		return wrap(c, r);
	if (c->fn == FN_UnwrapKey && r)
		return unwrap(c, r);
	if (c->fn == FN_GetMechanismList)
		return list(c);
	if (c->fn == FN_GetAttributeValue)
		return read_allowed(c);
	if (place(c, 't', 0) >= 0 && place(c, 'h', 0) >= 0)
		return make(c);
	if (c->fn != FN_GetMechanismInfo || !(r = imitation(c, c->a[1])))
		return forward_known(c);
	named = c->a[1];
	c->a[1] = r->as;
	rv = forward_known(c);
	c->a[1] = named;
	return rv;
}
