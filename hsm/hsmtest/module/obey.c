/* Doing what the rules say to a call. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

static void pause_for(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

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

static int is_for(const rule *r, const call *c)
{
	if (r->fn != ANY_FUNCTION && r->fn != c->fn)
		return 0;
	if (r->how & UNTIL_FINALIZE && r->fn == ANY_FUNCTION && c->fn == FN_Finalize)
		return 0;
	if (r->attributes.n && !names_attribute(c, &r->attributes))
		return 0;
	return !r->mechanisms.n || names_mechanism(c, &r->mechanisms);
}

static void act(const control *c, const rule *r)
{
	if (r->does & DOES_DELAY)
		pause_for(r->delay);
	if (r->does & DOES_HANG)
		hang(c);
	if (r->does & DOES_CRASH)
		crash((int)r->signal);
}

/* Goes through the rules in their order. The first that answers before the
 * effect ends it; those for after the effect are kept for then. */
word obey(control *c, call *k)
{
	rule *later[MAX_RULES];
	int i, n = 0;
	word rv;

	for (i = 0; i < c->n; i++) {
		rule *r = &c->rules[i];
		if (!is_for(r, k) || !board_due(c, i))
			continue;
		if (r->how & UNTIL_FINALIZE)
			__atomic_store_n(&r->begun, 1, __ATOMIC_RELAXED);
		if (r->how & AFTER) {
			later[n++] = r;
			continue;
		}
		act(c, r);
		if (r->does & DOES_ANSWER)
			return r->code;
	}
	rv = effect(k);
	for (i = 0; i < n; i++) {
		act(c, later[i]);
		if (later[i]->does & DOES_ANSWER)
			rv = later[i]->code;
	}
	return rv;
}
