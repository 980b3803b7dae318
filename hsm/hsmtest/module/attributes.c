/* Attributes and mechanisms that the module does not know, ignores or betrays. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <stdlib.h>
#include <string.h>

/* The attributes that protect a key, and the value that does not. */
static const struct { word type; ck_byte lax; } protections[] = {
	{CKA_SENSITIVE, 0}, {CKA_EXTRACTABLE, 1}, {CKA_MODIFIABLE, 1}, {CKA_COPYABLE, 1},
	{CKA_DESTROYABLE, 1}, {CKA_WRAP_WITH_TRUSTED, 0}, {CKA_TRUSTED, 0},
};
enum { PROTECTIONS = sizeof protections / sizeof *protections };

static int protection(word type)
{
	int i;

	for (i = 0; i < PROTECTIONS; i++)
		if (protections[i].type == type)
			return i;
	return -1;
}

/* Whether a rule that does something to attributes hits the call and names one. */
static int hit_attribute(const call *c, word does, word how, word type)
{
	int i;

	for (i = 0; i < c->n; i++)
		if (c->hit[i]->does & does && (c->hit[i]->how & how) == how && in(&c->hit[i]->attributes, type))
			return 1;
	return 0;
}

int is_mechanism_unknown(const call *c, word type)
{
	int i;

	for (i = 0; i < c->n; i++)
		if (c->hit[i]->does & DOES_UNKNOWN && in(&c->hit[i]->mechanisms, type))
			return 1;
	return 0;
}

/* Copies what is not left out of a list, and tells how many that is. */
static word deliver(const call *c, const word *all, word n, int (*leave_out)(const call *, word))
{
	word *list = (word *)c->a[1], *count = (word *)c->a[2], room = *count, i;

	*count = 0;
	for (i = 0; i < n; i++) {
		if (leave_out(c, all[i]))
			continue;
		if (list && *count < room)
			list[*count] = all[i];
		++*count;
	}
	return list && *count > room ? CKR_BUFFER_TOO_SMALL : CKR_OK;
}

/* Makes a call that lists slots or mechanisms and leaves some out. */
word forward_list(call *c, int (*leave_out)(const call *, word))
{
	word n = 0, a[] = {c->a[0], 0, (word)&n}, rv, *all;

	if (!c->a[2])
		return CKR_ARGUMENTS_BAD;
	rv = pass(c->fn, a);
	if (rv != CKR_OK || !(all = calloc(n + 1, sizeof *all)))
		return rv != CKR_OK ? rv : CKR_GENERAL_ERROR;
	a[1] = (word)all;
	rv = pass(c->fn, a);
	if (rv == CKR_OK)
		rv = deliver(c, all, n, leave_out);
	free(all);
	return rv;
}

/* Lists as many slots or mechanisms as a rule says: those of the real module, again and again. */
word list_as_many(call *c)
{
	word real[512], n = 512, a[] = {c->a[0], (word)real, (word)&n}, rv = pass(c->fn, a), i;
	word *list = (word *)c->a[1], *count = (word *)c->a[2], room = *count;

	if (rv != CKR_OK)
		return rv;
	*count = n ? hit_by(c, DOES_LIST)->listed : 0;
	if (list && room < *count)
		return CKR_BUFFER_TOO_SMALL;
	for (i = 0; list && i < *count; i++)
		list[i] = real[i % n];
	return CKR_OK;
}

static word length_of(const call *c)
{
	word size = 0, a[] = {c->a[0], c->a[1], 0, 1};
	ck_attribute t = {CKA_VALUE_LEN, &size, sizeof size};

	a[2] = (word)&t;
	return pass(FN_GetAttributeValue, a) == CKR_OK && size < 1 << 16 ? size : 32;
}

/* Answers a secret attribute with bytes. */
static word reveal(const call *c, ck_attribute *t)
{
	word size = length_of(c), room = t->len;

	t->len = size;
	if (t->value && room < size) {
		t->len = UNAVAILABLE;
		return CKR_BUFFER_TOO_SMALL;
	}
	if (t->value)
		memset(t->value, 0x5a, size);
	return CKR_OK;
}

/* Answers what the template asked for when the key was made. */
static void pretend(const call *c, ck_attribute *t)
{
	int i = protection(t->type);
	word asked = remembered(c->a[1]);

	if (i >= 0 && asked >> 2 * i & 1 && t->value && t->len == 1)
		*(ck_byte *)t->value = asked >> (2 * i + 1) & 1;
}

/* Puts the answer for one attribute in its place. */
static word answer(const call *c, ck_attribute *t, const ck_attribute *real, word rv)
{
	int secret = rv == CKR_ATTRIBUTE_SENSITIVE && real->len == UNAVAILABLE;

	if (secret && hit_attribute(c, DOES_REVEAL, 0, t->type))
		return reveal(c, t);
	t->len = real->len;
	if (hit_attribute(c, DOES_IGNORE, PRETEND, t->type))
		pretend(c, t);
	return t->len == UNAVAILABLE ? rv : CKR_OK;
}

/* Reads attributes, of which some are unknown, and some told otherwise. */
word read_attributes(call *c)
{
	ck_attribute *t = (ck_attribute *)c->a[2], *known = calloc(c->a[3] + 1, sizeof *t);
	word n = c->a[3], k, m = 0, rv, one, all = CKR_OK;

	for (k = 0; known && k < n; k++)
		if (!hit_attribute(c, DOES_UNKNOWN, 0, t[k].type))
			known[m++] = t[k];
	c->a[2] = (word)known;
	c->a[3] = m;
	rv = forward(c);
	c->a[2] = (word)t;
	c->a[3] = n;
	for (k = m = 0; k < n; k++) {
		one = CKR_ATTRIBUTE_TYPE_INVALID;
		if (hit_attribute(c, DOES_UNKNOWN, 0, t[k].type))
			t[k].len = UNAVAILABLE;
		else
			one = answer(c, &t[k], &known[m++], rv);
		all = one == CKR_OK ? all : one;
	}
	free(known);
	return rv == CKR_OK || rv == CKR_ATTRIBUTE_SENSITIVE ? all : rv;
}

/* Copies a template without what protects, and tells what it asked for. */
static word relax(const call *c, const ck_attribute *t, word n, ck_attribute *to, word *asked)
{
	word k, m = 0;

	for (k = 0; k < n; k++) {
		int i = protection(t[k].type);
		if (!hit_attribute(c, DOES_IGNORE, 0, t[k].type)) {
			to[m++] = t[k];
			continue;
		}
		if (i < 0 || !t[k].value || t[k].len != 1)
			continue;
		*asked |= (1UL | (*(ck_byte *)t[k].value ? 2UL : 0UL)) << 2 * i;
		to[m++] = (ck_attribute){t[k].type, (void *)&protections[i].lax, 1};
	}
	return m;
}

/* Makes a call that makes objects, with templates that ask for less. */
word forward_relaxed(call *c)
{
	ck_attribute *copies[2] = {0, 0}, *was[2] = {0, 0};
	word n[2] = {0, 0}, asked[2] = {0, 0}, rv;
	int i, nth;

	for (nth = 0; (i = place(c, 't', nth)) >= 0; nth++) {
		was[nth] = (ck_attribute *)c->a[i];
		n[nth] = c->a[i + 1];
		copies[nth] = calloc(n[nth] + 1, sizeof **copies);
		c->a[i + 1] = relax(c, was[nth], n[nth], copies[nth], &asked[nth]);
		c->a[i] = (word)copies[nth];
	}
	rv = forward(c);
	for (nth = 0; (i = place(c, 't', nth)) >= 0; nth++) {
		free(copies[nth]);
		c->a[i] = (word)was[nth];
		c->a[i + 1] = n[nth];
		if (rv == CKR_OK)
			remember(*(word *)c->a[place(c, 'h', nth)], asked[nth]);
	}
	return rv;
}
