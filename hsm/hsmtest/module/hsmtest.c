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

#define LIST(n) FUNCTIONS(STUB, n)
LIST(0) LIST(1) LIST(2) LIST(3) LIST(4) LIST(5) LIST(6) LIST(7)
LIST(8) LIST(9) LIST(10) LIST(11) LIST(12) LIST(13) LIST(14) LIST(15)

#define TABLE(n) {{2, 40}, {FUNCTIONS(ENTRY, n)}},
static ck_functions lists[LISTS] = {
	TABLE(0) TABLE(1) TABLE(2) TABLE(3) TABLE(4) TABLE(5) TABLE(6) TABLE(7)
	TABLE(8) TABLE(9) TABLE(10) TABLE(11) TABLE(12) TABLE(13) TABLE(14) TABLE(15)
};

/* The child of a fork begins anew when it initializes, as the specification
 * asks of it. */
static void after_fork(void)
{
	static pid_t owner;

	if (owner && owner != getpid()) {
		gate_reset();
		track_reset();
		lists_reset();
		board_reopen();
	}
	owner = getpid();
}

/* Hands out the list through which it is asked for, which is the first for who
 * has none, or one that nobody has yet. */
word give_list(call *c)
{
	static int fresh;
	int n = c->list;

	if (!c->a[0])
		return CKR_ARGUMENTS_BAD;
	if (hit_by(c, DOES_FRESH_LIST))
		n = __atomic_add_fetch(&fresh, 1, __ATOMIC_RELAXED);
	if (n >= LISTS) {
		fprintf(stderr, "hsmtest: there are no more than %d fresh function lists\n", LISTS - 1);
		return CKR_GENERAL_ERROR;
	}
	*(ck_functions **)c->a[0] = &lists[n];
	return CKR_OK;
}

static word run(int list, int fn, word *a)
{
	call k = {.fn = fn, .roles = roles[fn], .a = a, .list = list};
	control *c = control_take(fn == FN_Initialize);
	word rv;

	if (!c)
		return fn == FN_GetFunctionList ? give_list(&k) : CKR_FUNCTION_FAILED;
	if (fn == FN_Initialize)
		after_fork();
	board_called(fn);
	rv = obey(c, &k);
	unreserve(&k);
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
