/* A PKCS #11 module that forwards to another and misbehaves on command. See
 * doc.go in the directory above. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <unistd.h>

static word run(int list, int fn, word *a);

#define STUB(list, name, arity, roles) STUB##arity(list, name)
#define STUB1(l, name) static word f##l##_##name(word a) \
	{ return run(l, FN_##name, (word[]){a}); }
#define STUB2(l, name) static word f##l##_##name(word a, word b) \
	{ return run(l, FN_##name, (word[]){a, b}); }
#define STUB3(l, name) static word f##l##_##name(word a, word b, word c) \
	{ return run(l, FN_##name, (word[]){a, b, c}); }
#define STUB4(l, name) static word f##l##_##name(word a, word b, word c, word d) \
	{ return run(l, FN_##name, (word[]){a, b, c, d}); }
#define STUB5(l, name) static word f##l##_##name(word a, word b, word c, word d, word e) \
	{ return run(l, FN_##name, (word[]){a, b, c, d, e}); }
#define STUB6(l, name) static word f##l##_##name(word a, word b, word c, word d, word e, word f) \
	{ return run(l, FN_##name, (word[]){a, b, c, d, e, f}); }
#define STUB8(l, name) static word f##l##_##name(word a, word b, word c, word d, word e, word f, \
	word g, word h) { return run(l, FN_##name, (word[]){a, b, c, d, e, f, g, h}); }
#define ENTRY(l, name, arity, roles) (void *)f##l##_##name,

FUNCTIONS(STUB, 0)
static ck_functions lists[] = {{{2, 40}, {FUNCTIONS(ENTRY, 0)}}};

/* The child of a fork begins anew when it initializes, as the specification
 * asks of it. */
static void after_fork(void)
{
	static pid_t owner;

	if (owner && owner != getpid()) {
		track_reset();
		board_reopen();
	}
	owner = getpid();
}

static word give_list(const call *k)
{
	if (!k->a[0])
		return CKR_ARGUMENTS_BAD;
	*(ck_functions **)k->a[0] = &lists[k->list];
	return CKR_OK;
}

/* What the call is for, once the rules let it pass. */
word effect(const call *k)
{
	return k->fn == FN_GetFunctionList ? give_list(k) : forward(k);
}

static word run(int list, int fn, word *a)
{
	call k = {fn, roles[fn], a, list};
	control *c = control_take(fn == FN_Initialize);
	word rv;

	if (!c)
		return fn == FN_GetFunctionList ? give_list(&k) : CKR_FUNCTION_FAILED;
	if (fn == FN_Initialize)
		after_fork();
	board_called(fn);
	rv = obey(c, &k);
	if (fn == FN_Finalize)
		control_finalized();
	control_drop(c);
	return rv;
}

__attribute__((visibility("default"))) word C_GetFunctionList(ck_functions **to);

__attribute__((visibility("default"))) word C_GetFunctionList(ck_functions **to)
{
	return run(0, FN_GetFunctionList, (word[]){(word)to});
}
