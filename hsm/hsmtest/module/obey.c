/* Doing what the rules say to a call. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <time.h>

/* Has the kernel end the pauses of this thread on time, instead of up to 50 microseconds
 * later, which is much of a short delay. */
static void be_punctual(void)
{
#ifdef PR_SET_TIMERSLACK
	static __thread int punctual;

	if (!punctual)
		prctl(PR_SET_TIMERSLACK, 1);
	punctual = 1;
#endif
}

static void pause_for(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

	be_punctual();
	while (nanosleep(&t, &t))
		;
}

/* Hangs until the control file changes. No lock is held. */
static void hang(const control *c)
{
	while (control_current(c))
		pause_for(1000000);
}

static void crash(int number)
{
	signal(number, SIG_DFL);
	raise(number);
	abort();
}

static void leak(word bytes)
{
	void *lost = malloc(bytes);

	if (lost)
		memset(lost, 0x5a, bytes); /* memory that was not written is not occupied */
}

static int tells_length(const call *c)
{
	return place(c, '#', 0) >= 0 || c->fn == FN_GetAttributeValue;
}

static int too_long(const rule *r, const call *c)
{
	int i = place(c, 'b', 0);

	return i >= 0 && c->a[i + 1] > r->max_part;
}

static int too_many(const rule *r, call *c)
{
	return c->fn == FN_OpenSession && !room(c, r->max_sessions);
}

static int is_unknown(const rule *r, const call *c)
{
	int named = place(c, 'm', 0) >= 0 || place(c, 'k', 0) >= 0;

	if (c->fn == FN_GetMechanismList)
		return r->mechanisms.n;
	return (r->attributes.n && names_attribute(c, &r->attributes)) ||
		(r->mechanisms.n && named && names_mechanism(c, &r->mechanisms));
}

static int makes_objects(const call *c)
{
	return place(c, 't', 0) >= 0 && place(c, 'h', 0) >= 0;
}

static int reads(const rule *r, const call *c)
{
	return c->fn == FN_GetAttributeValue && names_attribute(c, &r->attributes);
}

/* Whether a call would make an object of the session. */
static int makes_session_object(const call *c)
{
	int i, nth;
	word k;

	for (nth = 0; makes_objects(c) && (i = place(c, 't', nth)) >= 0; nth++) {
		const ck_attribute *t = (const ck_attribute *)c->a[i];
		for (k = 0; k < c->a[i + 1]; k++)
			if (t[k].type == CKA_TOKEN && t[k].len == 1 && *(ck_byte *)t[k].value)
				break;
		if (k == c->a[i + 1])
			return 1;
	}
	return 0;
}

/* Where a key of the token is made, told of or changed. */
static int of_token_keys(const call *c)
{
	if (c->fn == FN_GenerateKey || c->fn == FN_CopyObject)
		return !makes_session_object(c);
	return (c->fn == FN_GetAttributeValue || c->fn == FN_SetAttributeValue) && c->a[2];
}

/* Where a mechanism that is imitated may be named. */
static int imitates(const rule *r, const call *c)
{
	if (c->fn == FN_WrapKey || c->fn == FN_GetMechanismInfo)
		return names_mechanism(c, &r->mechanisms);
	return c->fn == FN_GetMechanismList || c->fn == FN_GetAttributeValue || makes_objects(c);
}

/* Where a call tells flags, or 0. */
static word *flags_of(const call *c)
{
	if (c->fn == FN_GetSlotInfo && c->a[1])
		return &((ck_slot_info *)c->a[1])->flags;
	if (c->fn == FN_GetTokenInfo && c->a[1])
		return &((ck_token_info *)c->a[1])->flags;
	if (c->fn == FN_GetMechanismInfo && c->a[2])
		return &((ck_mechanism_info *)c->a[2])->flags;
	return 0;
}

static int writes(const call *c)
{
	return c->fn == FN_OpenSession && c->a[1] & CKF_RW_SESSION;
}

/* Whether a call gives a list that the rule makes longer. */
int makes_longer(const rule *r, const call *c)
{
	return c->fn == FN_GetMechanismList || (c->fn == FN_GetSlotList && r->fn == c->fn);
}

/* Whether one of the things that the rule does concerns the call. */
static int concerns(const rule *r, call *c)
{
	const word at_any = DOES_ANSWER | DOES_DELAY | DOES_HANG | DOES_CRASH | DOES_LEAK |
		DOES_VANISH_SESSIONS | DOES_VANISH_OBJECTS;
	const word tokens = DOES_REMOVE | DOES_REPLACE;
	const word told = DOES_TOLD_SESSIONS | DOES_MAX_SESSIONS;

	if (r->does & DOES_MAX_PART)
		return too_long(r, c);
	return r->does & at_any ||
		(r->does & tokens && is_of_tokens(c)) ||
		(r->does & told && c->fn == FN_GetTokenInfo) ||
		(r->does & (DOES_LENGTH | DOES_GARBLE) && tells_length(c)) ||
		(r->does & DOES_TELL && c->fn == FN_GetAttributeValue) ||
		(r->does & DOES_MAX_SESSIONS && too_many(r, c)) ||
		(r->does & DOES_FLAGS && flags_of(c)) ||
		(r->does & DOES_KEY_SIZE && c->fn == FN_GetMechanismInfo && c->a[2]) ||
		(r->does & DOES_LIST && makes_longer(r, c) && c->a[2]) ||
		(r->does & DOES_MAX_FOUND && c->fn == FN_FindObjects) ||
		(r->does & DOES_WRITE_PROTECT && (writes(c) || (c->fn == FN_GetTokenInfo && c->a[1]))) ||
		(r->does & DOES_UNKNOWN && is_unknown(r, c)) ||
		(r->does & DOES_FRESH_LIST && c->fn == FN_GetFunctionList) ||
		(r->does & DOES_IMITATE && imitates(r, c)) ||
		(r->does & DOES_OFFICER && of_token_keys(c)) ||
		(r->does & DOES_TOKEN_ONLY && makes_session_object(c)) ||
		(r->does & DOES_REVEAL && reads(r, c)) ||
		(r->does & DOES_IGNORE && r->how & PRETEND && reads(r, c)) ||
		(r->does & DOES_IGNORE && makes_objects(c) && names_attribute(c, &r->attributes));
}

static int is_for(const rule *r, call *c)
{
	const word lists = DOES_UNKNOWN | DOES_IGNORE | DOES_REVEAL | DOES_IMITATE; /* what the names are for */

	if (r->fn != ANY_FUNCTION && r->fn != c->fn)
		return 0;
	if (r->how & UNTIL_FINALIZE && r->fn == ANY_FUNCTION && c->fn == FN_Finalize)
		return 0;
	if (!(r->does & lists) && r->attributes.n && !names_attribute(c, &r->attributes))
		return 0;
	if (!(r->does & lists) && r->mechanisms.n && !names_mechanism(c, &r->mechanisms))
		return 0;
	return concerns(r, c);
}

static void act(const control *c, const rule *r)
{
	if (r->does & DOES_DELAY)
		pause_for(r->delay);
	if (r->does & DOES_HANG)
		hang(c);
	if (r->does & DOES_CRASH)
		crash((int)r->signal);
	if (r->does & DOES_LEAK)
		leak(r->leak);
	if (r->does & DOES_VANISH_SESSIONS)
		vanish_sessions(0, 0);
	if (r->does & DOES_VANISH_OBJECTS)
		vanish_objects();
}

/* Whether a rule keeps a call from the real module, and with which code. */
static int refuses(const rule *r, call *c, word *rv)
{
	*rv = r->code;
	if (r->does & DOES_ANSWER && !(r->how & AFTER))
		return 1;
	if (r->does & DOES_REMOVE)
		return removed(r, c, rv);
	*rv = CKR_SESSION_COUNT;
	if (r->does & DOES_MAX_SESSIONS && c->fn == FN_OpenSession)
		return 1;
	*rv = CKR_TOKEN_WRITE_PROTECTED;
	if (r->does & DOES_WRITE_PROTECT && writes(c))
		return 1;
	*rv = CKR_TEMPLATE_INCONSISTENT;
	if (r->does & DOES_TOKEN_ONLY)
		return 1;
	*rv = CKR_DATA_LEN_RANGE;
	if (r->does & DOES_MAX_PART)
		return 1;
	if (!(r->does & DOES_UNKNOWN) || c->fn == FN_GetMechanismList || c->fn == FN_GetAttributeValue)
		return 0;
	*rv = CKR_MECHANISM_INVALID;
	if (r->attributes.n && names_attribute(c, &r->attributes))
		*rv = CKR_ATTRIBUTE_TYPE_INVALID;
	return 1;
}

static void tell_length(const rule *r, const call *c)
{
	int i = place(c, '#', 0);
	ck_attribute *t = (ck_attribute *)c->a[2];
	word k;

	if (i >= 0 && c->a[i])
		*(word *)c->a[i] = r->length;
	for (k = 0; i < 0 && t && k < c->a[3]; k++)
		if (!r->attributes.n || in(&r->attributes, t[k].type))
			t[k].len = r->length;
}

static void invert(void *value, word len)
{
	if (value && len && len != UNAVAILABLE)
		*(ck_byte *)value ^= 0xff;
}

/* Whether a call returned some of the attributes in spite of its code. */
static int tells_some(const call *c, word rv)
{
	return c->fn == FN_GetAttributeValue && (rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE);
}

/* Inverts the first byte of what a call returned. */
static void garble(const rule *r, const call *c)
{
	int i = place(c, '#', 0), to = c->fn == FN_FindObjects ? 1 : i - 1;
	ck_attribute *t = (ck_attribute *)c->a[2];
	word k;

	if (i > 0 && c->roles[to] == '-' && c->a[i])
		invert((void *)c->a[to], *(word *)c->a[i]);
	for (k = 0; i < 0 && t && k < c->a[3]; k++)
		if (!r->attributes.n || in(&r->attributes, t[k].type))
			invert(t[k].value, t[k].len);
}

/* Puts another number or truth value into what a call read. */
static void tell_value(const rule *r, const call *c)
{
	ck_attribute *t = (ck_attribute *)c->a[2];
	word k;

	for (k = 0; t && k < c->a[3]; k++) {
		if (!in(&r->attributes, t[k].type) || !t[k].value)
			continue;
		if (t[k].len == sizeof(word))
			memcpy(t[k].value, &r->told, sizeof(word));
		else if (t[k].len == 1)
			*(ck_byte *)t[k].value = (ck_byte)r->told;
	}
}

static void tell_sessions(const rule *r, const call *c)
{
	ck_token_info *info = (ck_token_info *)c->a[1];
	word n = r->does & DOES_TOLD_SESSIONS ? r->told_sessions : r->max_sessions;

	if (info && c->fn == FN_GetTokenInfo)
		info->max_sessions = info->max_rw = n;
}

static void tell_flags(const rule *r, const call *c)
{
	word *flags = flags_of(c);

	if (flags)
		*flags = (*flags & ~r->clear) | r->set;
	if (flags && r->does & DOES_WRITE_PROTECT && c->fn == FN_GetTokenInfo)
		*flags |= CKF_WRITE_PROTECTED;
	if (r->does & DOES_KEY_SIZE && c->fn == FN_GetMechanismInfo) {
		ck_mechanism_info *info = (ck_mechanism_info *)c->a[2];
		info->min_key = info->max_key = r->key_size;
	}
}

/* What comes after the real call. */
static word afterwards(const control *c, const rule *r, const call *k, word rv)
{
	if (r->how & AFTER)
		act(c, r);
	if (r->does & DOES_LENGTH && tells_length(k))
		tell_length(r, k);
	if (r->does & DOES_GARBLE && tells_length(k) && (rv == CKR_OK || tells_some(k, rv)))
		garble(r, k);
	if (r->does & DOES_TELL && (rv == CKR_OK || tells_some(k, rv)))
		tell_value(r, k);
	if (r->does & (DOES_TOLD_SESSIONS | DOES_MAX_SESSIONS))
		tell_sessions(r, k);
	if (r->does & (DOES_FLAGS | DOES_WRITE_PROTECT | DOES_KEY_SIZE) && rv == CKR_OK)
		tell_flags(r, k);
	return r->how & AFTER && r->does & DOES_ANSWER ? r->code : rv;
}

/* Goes through the rules in their order. The first that keeps the call from the
 * real module ends it. */
word obey(control *c, call *k)
{
	int i;
	word rv;

	for (i = 0; i < c->n; i++) {
		rule *r = &c->rules[i];
		if (!is_for(r, k) || !board_due(c, i))
			continue;
		if (r->how & UNTIL_FINALIZE)
			__atomic_store_n(&r->begun, 1, __ATOMIC_RELAXED);
		if (!(r->how & AFTER))
			act(c, r);
		if (refuses(r, k, &rv))
			return rv;
		k->hit[k->n++] = r;
	}
	rv = effect(k);
	for (i = 0; i < k->n; i++)
		rv = afterwards(c, k->hit[i], k, rv);
	return rv;
}
