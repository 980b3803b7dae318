/* One C call for each operation of package hsm: each runs all the C_ functions
 * of the operation, so that Go crosses into C once. A template crosses in flat
 * form, a sequence of {type, length, value padded to 8 bytes}: such memory has
 * no pointers and may be Go's. The value of an UNWRAP_TEMPLATE or WRAP_TEMPLATE
 * is itself such a sequence. */
#ifndef MSL_OPERATION_H
#define MSL_OPERATION_H

#include "cryptoki.h"

#include <signal.h>

/* What an operation gave: the answer and the place of the function it is of;
 * a length or a handle; and of a new key the attributes read back, where -1
 * means that the module does not tell, and MSL_UNWRITTEN that it wrote nothing. */
typedef struct {
	ck_rv rv;
	int fn;
	ck_ulong value;
	int sensitive, extractable;
	long size;
} msl_result;

enum { CKR_OK = 0, CKR_ARGUMENTS_BAD = 7, MAX_ATTRIBUTES = 40, MAX_NESTED = 24 };

/* These stand where a module is to write, and are nothing that it would. */
enum { UNWRITTEN_BYTE = 0x5a, MSL_UNWRITTEN = -2 };
enum { UNWRITTEN_FLAGS = 0x40000000 }; /* a bit without a meaning: SoftHSM adds some flags to what is there */
#define UNWRITTEN ((ck_ulong)-1)

/* What the sessions are at, and at 0 what has no session yet: for the watch, which looks for a call
 * that does not return. The first function of an operation stays in began, where that was FN_count
 * before.
 * The handle of a session, which may be a pointer or have low bits that are always the same, is
 * spread over the places (Knuth, The Art of Computer Programming, section 6.4). Another module may
 * have sessions with the same handles. */
enum { MSL_PLACES = 256 };
#define MSL_SPREAD 0x9e3779b97f4a7c15ULL
typedef struct {
	const ck_functions *module;
	ck_ulong session; /* that was here last */
	ck_ulong calls;
	int doing, began;
} msl_place;
extern msl_place msl_places[MSL_PLACES];

static inline void msl_at(const ck_functions *f, ck_ulong session, int fn)
{
	msl_place *p = &msl_places[(session + (ck_ulong)f) * MSL_SPREAD >> 56];

	p->module = f;
	p->session = session;
	p->calls++;
	p->doing = fn;
	if (p->began == FN_count)
		p->began = fn;
}

#define AT(f, session, n) msl_at((f), (session), (n))
#define CALL(f, session, name, type) (AT(f, session, FN_##name), (type)(f)->fn[FN_##name])

/* A template in the form that the module reads, pointing into the flat one. */
typedef struct {
	ck_attribute a[MAX_ATTRIBUTES], nested[MAX_NESTED];
	ck_ulong n;
} msl_template;

int msl_expand(msl_template *t, ck_byte *in, ck_ulong n);
msl_result msl_answer(ck_rv rv, int fn, ck_ulong value);

/* What is the program's, and some libraries change: the handlers of the signals by which a
 * program is stopped or told something (SIGUSR1: that its parent ended, see keystore/isolated), and
 * of those that the Go runtime cannot do without; its directory, standard streams and umask, or -1
 * where there is none, or it is not known. */
enum { MSL_HANDLERS = 7, MSL_STREAMS = 3 };
typedef struct {
	struct sigaction handlers[MSL_HANDLERS];
	int directory, streams[MSL_STREAMS], umask;
} msl_kept;
void msl_keep(msl_kept *k);
void msl_restore(const msl_kept *k);
void msl_forget(const msl_kept *k);

ck_functions *msl_load(const char *path, ck_rv *rv, char *reason, ck_ulong n);

msl_result msl_init_token(ck_functions *f, ck_ulong slot, ck_byte *pin, ck_ulong n, ck_byte *label);
msl_result msl_init_pin(ck_functions *f, ck_ulong session, ck_byte *pin, ck_ulong n);
msl_result msl_set_pin(ck_functions *f, ck_ulong session, ck_byte *old, ck_ulong n, ck_byte *pin, ck_ulong m);
msl_result msl_login(ck_functions *f, ck_ulong session, ck_ulong user, ck_byte *pin, ck_ulong n);
msl_result msl_logout(ck_functions *f, ck_ulong session);

msl_result msl_initialize(ck_functions *f, char *text);
msl_result msl_finalize(ck_functions *f);
msl_result msl_slots(ck_functions *f, ck_byte present, ck_ulong *list, ck_ulong n);
msl_result msl_slot_info(ck_functions *f, ck_ulong slot, ck_slot_info *info);
msl_result msl_token_info(ck_functions *f, ck_ulong slot, ck_token_info *info);
msl_result msl_mechanism_flags(ck_functions *f, ck_ulong slot, ck_ulong type);
msl_result msl_open_session(ck_functions *f, ck_ulong slot);
msl_result msl_close_session(ck_functions *f, ck_ulong session);
msl_result msl_session_state(ck_functions *f, ck_ulong session);
msl_result msl_find_init(ck_functions *f, ck_ulong session, ck_byte *template, ck_ulong n);
msl_result msl_find(ck_functions *f, ck_ulong session, ck_ulong *objects, ck_ulong max);
msl_result msl_find_final(ck_functions *f, ck_ulong session);
msl_result msl_attributes(ck_functions *f, ck_ulong session, ck_ulong object, ck_ulong *types,
	ck_ulong *lengths, ck_ulong n, ck_byte *values, ck_ulong piece);

msl_result msl_crypt(ck_functions *f, int init, ck_ulong session, ck_ulong key, ck_ulong mechanism,
	ck_byte *iv, ck_ulong ivlen, ck_byte *in, ck_ulong n, ck_byte *out, ck_ulong m);
/* Signs data that is too long for one call, in parts. */
msl_result msl_sign_parts(ck_functions *f, ck_ulong session, ck_ulong key, ck_ulong mechanism,
	ck_byte *in, ck_ulong n, ck_ulong part, ck_byte *out, ck_ulong m);
msl_result msl_wrap(ck_functions *f, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	ck_ulong key, ck_byte *iv, ck_ulong ivlen, ck_byte *out, ck_ulong m);
msl_result msl_wrap_for(ck_functions *f, ck_ulong session, ck_byte *peer, ck_ulong n,
	ck_ulong key, ck_byte *out, ck_ulong m);
msl_result msl_unwrap(ck_functions *f, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	ck_byte *iv, ck_ulong ivlen, ck_byte *in, ck_ulong n, ck_byte *template, ck_ulong m);
msl_result msl_reveal(ck_functions *f, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	ck_byte *in, ck_ulong n, ck_byte *template, ck_ulong m, ck_byte *out, ck_ulong size);
msl_result msl_generate(ck_functions *f, ck_ulong session, ck_ulong mechanism,
	ck_byte *template, ck_ulong n, int look);
msl_result msl_generate_pair(ck_functions *f, ck_ulong session, ck_ulong mechanism,
	ck_byte *public, ck_ulong n, ck_byte *private, ck_ulong m, ck_ulong *pub);
msl_result msl_create(ck_functions *f, ck_ulong session, ck_byte *template, ck_ulong n);
msl_result msl_set(ck_functions *f, ck_ulong session, ck_ulong object, ck_byte *template, ck_ulong n);
msl_result msl_copy(ck_functions *f, ck_ulong session, ck_ulong object, ck_byte *template, ck_ulong n);
msl_result msl_destroy(ck_functions *f, ck_ulong session, ck_ulong object);
msl_result msl_nested(ck_functions *f, ck_ulong session, ck_ulong object, ck_ulong type,
	ck_ulong *types, ck_ulong *values, ck_ulong n);

msl_result msl_random(ck_functions *f, ck_ulong session, ck_byte *out, ck_ulong n);

/* Hashes the value of a key, as far as the module does that. */
msl_result msl_digest_key(ck_functions *f, ck_ulong session, ck_ulong mechanism, ck_ulong key,
	ck_byte *out, ck_ulong m);

#endif
