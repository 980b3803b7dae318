/* Tokens that are taken out, or replaced by another. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Two tokens that have changed places. */
static struct {
	pthread_mutex_t lock;
	int on;
	rule as;
	word slot[2];
	ck_token_info info[2];
} swap = {.lock = PTHREAD_MUTEX_INITIALIZER};

int is_of_tokens(const call *c)
{
	return place(c, 'l', 0) == 0 || place(c, 's', 0) == 0 || c->fn == FN_GetSlotList;
}

/* The label is filled up with blanks. */
static int is_labelled(const ck_token_info *info, const char *label)
{
	ck_byte filled[32];

	memset(filled, ' ', sizeof filled);
	memcpy(filled, label, strlen(label));
	return !memcmp(filled, info->label, sizeof filled);
}

/* Finds the slot of a token in the real module. */
static int token_slot(const char *label, word *slot, ck_token_info *info)
{
	word n = 0, i, *slots, a[] = {1, 0, (word)&n};
	int found = 0;

	if (pass(FN_GetSlotList, a) != CKR_OK || !(slots = calloc(n + 1, sizeof *slots)))
		return 0;
	a[1] = (word)slots;
	if (pass(FN_GetSlotList, a) != CKR_OK)
		n = 0;
	for (i = 0; i < n && !found; i++) {
		word b[] = {slots[i], (word)info};
		*slot = slots[i];
		found = pass(FN_GetTokenInfo, b) == CKR_OK && is_labelled(info, label);
	}
	free(slots);
	if (!found)
		fprintf(stderr, "hsmtest: there is no token labelled \"%s\"\n", label);
	return found;
}

/* Takes a token, or all, out, and answers for it. A slot list and the slot's
 * information are still had from the real module. */
int removed(const rule *r, const call *c, word *rv)
{
	word slot = 0, at = slot;
	int list, all = !*r->token, known;
	ck_token_info info;

	*rv = CKR_GENERAL_ERROR;
	if (!all && !token_slot(r->token, &slot, &info))
		return 1;
	known = place(c, 's', 0) == 0 && session_on(c->a[0], &at, &list);
	vanish_sessions(all ? 0 : &slot, 0);
	*rv = CKR_DEVICE_REMOVED;
	if (place(c, 's', 0) == 0)
		return all || !known || at == slot;
	*rv = CKR_TOKEN_NOT_PRESENT;
	return place(c, 'l', 0) == 0 && c->fn != FN_GetSlotInfo && (all || c->a[0] == slot);
}

int is_slot_removed(const call *c, word slot)
{
	ck_token_info info;
	word a[] = {slot, (word)&info};
	int i;

	for (i = 0; i < c->n; i++)
		if (c->hit[i]->does & DOES_REMOVE && (!*c->hit[i]->token ||
			(pass(FN_GetTokenInfo, a) == CKR_OK && is_labelled(&info, c->hit[i]->token))))
			return 1;
	return 0;
}

static void vanish_swapped(void)
{
	vanish_sessions(&swap.slot[0], 0);
	vanish_sessions(&swap.slot[1], 0);
}

static int is_as(const rule *r)
{
	return swap.on && r && !strcmp(swap.as.token, r->token) && !strcmp(swap.as.replace, r->replace);
}

static word turn(const rule *r)
{
	if (swap.on)
		vanish_swapped();
	swap.on = 0;
	if (!r)
		return CKR_OK;
	if (!token_slot(r->token, &swap.slot[0], &swap.info[0]) ||
		!token_slot(r->replace, &swap.slot[1], &swap.info[1]))
		return CKR_GENERAL_ERROR;
	swap.on = 1;
	vanish_swapped();
	return CKR_OK;
}

static word other(word slot)
{
	if (swap.on && slot == swap.slot[0])
		return swap.slot[1];
	return swap.on && slot == swap.slot[1] ? swap.slot[0] : slot;
}

/* Lets tokens change places, or come back, as the rules that hit the call say,
 * and turns its slot into the one that is meant. */
word swap_tokens(call *c)
{
	const rule *r = hit_by(c, DOES_REPLACE);
	word rv = CKR_OK;

	pthread_mutex_lock(&swap.lock);
	if (r ? !is_as(r) : swap.on)
		rv = turn(r);
	if (r)
		swap.as = *r;
	if (place(c, 'l', 0) == 0)
		c->a[0] = other(c->a[0]);
	pthread_mutex_unlock(&swap.lock);
	return rv;
}

static void disguise(const ck_token_info *as, ck_token_info *info)
{
	if (swap.as.how & SAME_LABEL)
		memcpy(info->label, as->label, sizeof info->label);
	if (swap.as.how & SAME_SERIAL)
		memcpy(info->serial, as->serial, sizeof info->serial);
}

/* Corrects what a call that went well has told of tokens and slots. */
void tell_token(const call *c)
{
	pthread_mutex_lock(&swap.lock);
	if (c->fn == FN_GetSlotInfo && is_slot_removed(c, c->a[0]))
		((ck_slot_info *)c->a[1])->flags &= ~(word)CKF_TOKEN_PRESENT;
	if (c->fn == FN_GetSessionInfo)
		((ck_session_info *)c->a[1])->slot = other(((ck_session_info *)c->a[1])->slot);
	if (c->fn == FN_GetTokenInfo && other(c->a[0]) != c->a[0])
		disguise(&swap.info[c->a[0] == swap.slot[0]], (ck_token_info *)c->a[1]);
	pthread_mutex_unlock(&swap.lock);
}

/* After C_Finalize the slots may have other numbers. */
void unswap(void)
{
	pthread_mutex_lock(&swap.lock);
	swap.on = 0;
	pthread_mutex_unlock(&swap.lock);
}
