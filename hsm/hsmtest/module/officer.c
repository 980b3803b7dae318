/* A security officer who can mark the keys of a token as trusted. SoftHSM2 shows its officer
 * public objects only, so token keys are that, and told to be private; and it marks no key
 * that is there, so that is done in its file. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <ftw.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE = 64, CKA_CLASS = 0, CKA_PRIVATE = 2, CKA_ID = 0x102, CKO_SECRET_KEY = 4,
	CKS_RW_SO_FUNCTIONS = 4, CKR_ATTRIBUTE_READ_ONLY = 0x10, MAX_FILE = 1 << 16 };

/* Makes a token key that the officer sees. */
static word make(call *c)
{
	static ck_byte no;
	int at = place(c, 't', 0);
	ck_attribute to[MAX_TEMPLATE], *was = (ck_attribute *)c->a[at];
	word i, rv, n = c->a[at + 1];

	if (n > MAX_TEMPLATE)
		return CKR_ARGUMENTS_BAD;
	for (i = 0; i < n; i++) {
		to[i] = was[i];
		if (to[i].type == CKA_PRIVATE)
			to[i].value = &no;
	}
	c->a[at] = (word)to;
	rv = forward_known(c);
	c->a[at] = (word)was;
	return rv;
}

/* Whether an object is one that the officer may mark. */
static int is_token_key(const call *c)
{
	ck_byte token = 0;
	word class = 0;
	ck_attribute t[] = {{CKA_TOKEN, &token, sizeof token}, {CKA_CLASS, &class, sizeof class}};
	word a[] = {c->a[0], c->a[1], (word)t, 2};

	return pass(FN_GetAttributeValue, a) == CKR_OK && token && class == CKO_SECRET_KEY;
}

/* Tells of a token key that it is private. */
static word tell(call *c)
{
	ck_attribute *t = (ck_attribute *)c->a[2];
	word i, rv = forward_known(c);

	for (i = 0; is_token_key(c) && i < c->a[3]; i++)
		if (t[i].type == CKA_PRIVATE && t[i].value && t[i].len == 1)
			*(ck_byte *)t[i].value = 1;
	return rv;
}

/* The key to be marked, and whether it was. */
static struct {
	pthread_mutex_t lock;
	ck_byte id[64];
	word n;
	int done;
} marking = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Marks the key if the file is its: a file of numbers, the first of which counts its changes.
 * CKA_TRUSTED is a number of 8 bytes, then the type of a truth value, and that. */
static int mark(const char *path, const struct stat *info, int kind, struct FTW *at)
{
	static const ck_byte untrusted[17] = {[7] = 0x86, [15] = 1};
	ck_byte b[MAX_FILE], *place;
	FILE *f;
	size_t n;
	int i = 7;

	(void)info, (void)at;
	if (kind != FTW_F || !strstr(path, ".object") || !(f = fopen(path, "r+")))
		return 0;
	n = fread(b, 1, sizeof b, f);
	place = memmem(b, n, untrusted, sizeof untrusted);
	if (place && memmem(b, n, marking.id, marking.n)) {
		place[16] = 1;
		while (++b[i] == 0 && i > 0)
			i--;
		rewind(f);
		marking.done = fwrite(b, 1, n, f) == n;
	}
	return fclose(f) == 0 && marking.done;
}

/* Looks for the file below the directory that the configuration of SoftHSM2 names. */
static void mark_below(const char *configuration)
{
	FILE *f = configuration ? fopen(configuration, "r") : 0;
	char line[4096], dir[4096];

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, " directories.tokendir = %4095[^\n]", dir) == 1)
			nftw(dir, mark, 16, FTW_PHYS);
	if (f)
		fclose(f);
}

/* Marks a key as the officer, which no one else can. */
static word change(call *c)
{
	const ck_attribute *t = (const ck_attribute *)c->a[2];
	ck_attribute id = {CKA_ID, marking.id, sizeof marking.id};
	ck_session_info info = {0};
	word session[] = {c->a[0], (word)&info}, key[] = {c->a[0], c->a[1], (word)&id, 1}, rv = CKR_ATTRIBUTE_READ_ONLY;

	if (c->a[3] != 1 || t->type != CKA_TRUSTED || !is_token_key(c) ||
		pass(FN_GetSessionInfo, session) != CKR_OK || info.state != CKS_RW_SO_FUNCTIONS)
		return forward_known(c);
	pthread_mutex_lock(&marking.lock);
	marking.done = 0;
	if (pass(FN_GetAttributeValue, key) == CKR_OK) {
		marking.n = id.len;
		mark_below(getenv("SOFTHSM2_CONF"));
	}
	if (marking.done)
		rv = CKR_OK;
	pthread_mutex_unlock(&marking.lock);
	return rv;
}

/* Makes a call that the officer's part in changes. */
word with_officer(call *c)
{
	if (c->fn == FN_GetAttributeValue)
		return tell(c);
	return c->fn == FN_SetAttributeValue ? change(c) : make(c);
}
