/* What the arguments of a call are. */
#include "hsmtest.h"

#define ROLES(list, name, arity, roles) roles,
const char *const roles[FN_count] = { FUNCTIONS(ROLES, 0) };

/* The place of the nth argument of a role, from 0, or -1. */
int place(const call *c, char role, int nth)
{
	int i;

	for (i = 0; c->roles[i]; i++)
		if (c->roles[i] == role && nth-- == 0)
			return i;
	return -1;
}

int in(const names *n, word v)
{
	int i;

	for (i = 0; i < n->n; i++)
		if (n->v[i] == v)
			return 1;
	return 0;
}

/* The first rule that hits the call and does something, or 0. */
const rule *hit_by(const call *c, word does)
{
	int i;

	for (i = 0; i < c->n; i++)
		if (c->hit[i]->does & does)
			return c->hit[i];
	return 0;
}

/* Whether a template of the call names one of the attributes. */
int names_attribute(const call *c, const names *n)
{
	int i, nth;
	word k;

	for (nth = 0; (i = place(c, 't', nth)) >= 0; nth++) {
		const ck_attribute *t = (const ck_attribute *)c->a[i];
		for (k = 0; t && k < c->a[i + 1]; k++)
			if (in(n, t[k].type))
				return 1;
	}
	return 0;
}

/* Whether the call names one of the mechanisms, or goes on with one that was
 * named when the operation began. */
int names_mechanism(const call *c, const names *n)
{
	int i = place(c, 'm', 0), k = place(c, 'k', 0);

	if (i >= 0)
		return c->a[i] && in(n, ((const ck_mechanism *)c->a[i])->type);
	if (k >= 0)
		return in(n, c->a[k]);
	return in(n, mechanism_of(c));
}
