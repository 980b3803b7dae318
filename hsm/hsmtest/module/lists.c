/* The function lists that are handed out. The first forwards and is all that
 * most modules have. The others have an initialized state and sessions of their
 * own, as those of p11-kit's proxy have. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized[LISTS], users, joined;

/* For the child of a fork. */
void lists_reset(void)
{
	int i;

	pthread_mutex_init(&lock, 0);
	for (i = 0; i < LISTS; i++)
		initialized[i] = 0;
	users = joined = 0;
}

static word forward_shaped(call *c)
{
	if (hit_by(c, DOES_IMITATE))
		return imitate(c);
	if (hit_by(c, DOES_OFFICER))
		return with_officer(c);
	return forward_known(c);
}

/* The same, of what is not imitated. */
word forward_known(call *c)
{
	const word read_otherwise = DOES_UNKNOWN | DOES_REVEAL | DOES_IGNORE;

	if (c->fn == FN_GetSlotList && hit_by(c, DOES_REMOVE) && (ck_byte)c->a[0])
		return forward_list(c, is_slot_removed);
	if (hit_by(c, DOES_LIST) && makes_longer(hit_by(c, DOES_LIST), c))
		return list_as_many(c);
	if (c->fn == FN_FindObjects && hit_by(c, DOES_MAX_FOUND) && c->a[2] > hit_by(c, DOES_MAX_FOUND)->max_found)
		c->a[2] = hit_by(c, DOES_MAX_FOUND)->max_found;
	if (c->fn == FN_GetMechanismList && hit_by(c, DOES_UNKNOWN))
		return forward_list(c, is_mechanism_unknown);
	if (c->fn == FN_GetAttributeValue && c->a[2] && hit_by(c, read_otherwise))
		return read_attributes(c);
	if (place(c, 't', 0) >= 0 && place(c, 'h', 0) >= 0 && hit_by(c, DOES_IGNORE))
		return forward_relaxed(c);
	return forward(c);
}

/* Makes the real call in the shape that the rules give it. */
static word through(call *c)
{
	word rv = CKR_OK;

	if (is_of_tokens(c))
		rv = swap_tokens(c);
	if (rv != CKR_OK || c->fn == FN_WaitForSlotEvent)
		return rv != CKR_OK ? rv : forward(c);
	gate_enter();
	rv = forward_shaped(c);
	gate_leave();
	if (rv == CKR_OK)
		tell_token(c);
	if (c->fn == FN_Finalize && rv == CKR_OK)
		unswap();
	return rv;
}

static word initialize(call *c)
{
	word rv = CKR_OK;

	if (initialized[c->list])
		return CKR_CRYPTOKI_ALREADY_INITIALIZED;
	if (users == 0) {
		rv = through(c);
		joined = rv == CKR_CRYPTOKI_ALREADY_INITIALIZED;
	}
	if (rv != CKR_OK && !joined)
		return rv;
	initialized[c->list] = 1;
	users++;
	return CKR_OK;
}

static word finalize(call *c)
{
	if (!initialized[c->list])
		return CKR_CRYPTOKI_NOT_INITIALIZED;
	vanish_sessions(0, &c->list);
	initialized[c->list] = 0;
	return --users || joined ? CKR_OK : through(c);
}

/* A call through a list with a state of its own. */
static word through_own(call *c)
{
	word slot;
	int list = c->list;

	if (!initialized[c->list])
		return CKR_CRYPTOKI_NOT_INITIALIZED;
	if (place(c, 's', 0) == 0 && session_on(c->a[0], &slot, &list) && list != c->list)
		return CKR_SESSION_HANDLE_INVALID;
	if (c->fn != FN_CloseAllSessions)
		return through(c);
	vanish_sessions(&c->a[0], &c->list);
	return CKR_OK;
}

/* What a call is for, once the rules let it pass. */
word effect(call *c)
{
	word rv;

	if (c->fn == FN_GetFunctionList)
		return give_list(c);
	if (!c->list)
		return through(c);
	if (c->fn != FN_Initialize && c->fn != FN_Finalize)
		return through_own(c);
	pthread_mutex_lock(&lock);
	rv = c->fn == FN_Initialize ? initialize(c) : finalize(c);
	pthread_mutex_unlock(&lock);
	return rv;
}
