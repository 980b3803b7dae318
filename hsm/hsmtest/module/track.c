/* Passing calls on to the real module, and keeping account of the sessions and
 * objects that they really made and ended. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <pthread.h>
#include <string.h>

#include "table.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static table sessions, objects;
static word pending;  /* sessions being opened under a limit */
static int stale;     /* objects not in the table have vanished */

typedef word (*f1)(word);
typedef word (*f2)(word, word);
typedef word (*f3)(word, word, word);
typedef word (*f4)(word, word, word, word);
typedef word (*f5)(word, word, word, word, word);
typedef word (*f6)(word, word, word, word, word, word);
typedef word (*f8)(word, word, word, word, word, word, word, word);

word pass(int fn, const word *a)
{
	void *f = target()->fn[fn];

	switch (strlen(roles[fn])) {
	case 1: return ((f1)f)(a[0]);
	case 2: return ((f2)f)(a[0], a[1]);
	case 3: return ((f3)f)(a[0], a[1], a[2]);
	case 4: return ((f4)f)(a[0], a[1], a[2], a[3]);
	case 5: return ((f5)f)(a[0], a[1], a[2], a[3], a[4]);
	case 6: return ((f6)f)(a[0], a[1], a[2], a[3], a[4], a[5]);
	default: return ((f8)f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	}
}

/* Asks the real module whether an object is a token object; -1 if it is none. */
static int is_token(word session, word object)
{
	ck_byte yes = 0;
	ck_attribute t = {CKA_TOKEN, &yes, 1};
	word a[] = {session, object, (word)&t, 1};

	return pass(FN_GetAttributeValue, a) == CKR_OK ? yes != 0 : -1;
}

/* Which entries: all, the one of a handle, sessions on a slot, session objects,
 * those of a session, those of none, and those that the real module has lost. */
static int any(const entry *e, word x) { (void)x; return e != 0; }
static int is(const entry *e, word handle) { return e->key == handle; }
static int on(const entry *e, word slot) { return e->owner == slot; }
static int passing(const entry *e, word x) { (void)x; return !e->token; }
static int owned(const entry *e, word session) { return !e->token && e->owner == session; }
static int dangling(const entry *e, word x)
{
	(void)x;
	return !e->token && !table_find(&sessions, e->owner);
}
static int dead(const entry *e, word session)
{
	return !e->token && is_token(session, e->key) < 0;
}

static void opened(call *c)
{
	entry *e;

	pthread_mutex_lock(&lock);
	e = table_add(&sessions, *(word *)c->a[4]);
	e->owner = c->a[0];
	e->list = c->list;
	pending -= (word)c->reserved;
	c->reserved = 0;
	board_live(1, 0);
	pthread_mutex_unlock(&lock);
}

/* Whether a session may be opened where max may be open. If so a place is kept,
 * so that two calls at once do not take the last one both. */
int room(call *c, word max)
{
	int free;

	pthread_mutex_lock(&lock);
	free = (word)sessions.n + pending - (word)c->reserved < max;
	if (free && !c->reserved) {
		c->reserved = 1;
		pending++;
	}
	pthread_mutex_unlock(&lock);
	return free;
}

void unreserve(call *c)
{
	pthread_mutex_lock(&lock);
	pending -= (word)c->reserved;
	c->reserved = 0;
	pthread_mutex_unlock(&lock);
}

/* Tells the slot and the function list of a session that is open. */
int session_on(word session, word *slot, int *list)
{
	entry *e;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&sessions, session))) {
		*slot = e->owner;
		*list = e->list;
	}
	pthread_mutex_unlock(&lock);
	return e != 0;
}

void remember(word object, word asked)
{
	entry *e;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&objects, object)))
		e->asked = asked;
	pthread_mutex_unlock(&lock);
}

word remembered(word object)
{
	entry *e;
	word asked = 0;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&objects, object)))
		asked = e->asked;
	pthread_mutex_unlock(&lock);
	return asked;
}

static void made(word session, word object)
{
	int token = is_token(session, object) == 1;
	entry *e;

	pthread_mutex_lock(&lock);
	e = table_add(&objects, object);
	e->owner = session;
	e->token = token;
	board_live(0, !token);
	board_token_objects(token);
	pthread_mutex_unlock(&lock);
}

/* A handle is struck out before the real call and put back if that fails, since
 * another thread may be given the number as soon as it is free. */
static word close_session(const word *a)
{
	entry *e, was = {0};
	word rv;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&sessions, a[0])))
		was = *e;
	table_remove(&sessions, is, a[0]);
	pthread_mutex_unlock(&lock);
	rv = pass(FN_CloseSession, a);
	pthread_mutex_lock(&lock);
	if (e && rv != CKR_OK)
		table_put(&sessions, &was);
	else if (e)
		board_live(-1, -table_remove(&objects, owned, a[0]));
	pthread_mutex_unlock(&lock);
	return rv;
}

static word destroy(const word *a)
{
	entry *e, was = {0};
	int token;
	word rv;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&objects, a[1])))
		was = *e;
	table_remove(&objects, is, a[1]);
	pthread_mutex_unlock(&lock);
	token = e ? was.token : is_token(a[0], a[1]) == 1;
	rv = pass(FN_DestroyObject, a);
	pthread_mutex_lock(&lock);
	if (e && rv != CKR_OK)
		table_put(&objects, &was);
	else if (rv == CKR_OK) {
		board_token_objects(-token);
		board_live(0, -(e && !token));
	}
	pthread_mutex_unlock(&lock);
	return rv;
}

static void all_closed(word slot)
{
	int n;

	pthread_mutex_lock(&lock);
	n = table_remove(&sessions, on, slot);
	board_live(-n, -table_remove(&objects, dangling, 0));
	pthread_mutex_unlock(&lock);
}

/* C_Logout destroys the private session objects, which only the real module
 * tells from others. */
static void logged_out(word session)
{
	pthread_mutex_lock(&lock);
	board_live(0, -table_remove(&objects, dead, session));
	pthread_mutex_unlock(&lock);
}

static void forget_all(void)
{
	pthread_mutex_lock(&lock);
	stale = 0;
	board_live(-table_remove(&sessions, any, 0), -table_remove(&objects, passing, 0));
	table_remove(&objects, any, 0);
	pthread_mutex_unlock(&lock);
}

/* For the child of a fork: what its parent holds is not its own. */
void track_reset(void)
{
	pthread_mutex_init(&lock, 0);
	table_remove(&sessions, any, 0);
	table_remove(&objects, any, 0);
	pending = 0;
	stale = 0;
}

/* What is to vanish, or any. */
static const word *of_slot;
static const int *of_list;

static int is_of(const entry *e, word x)
{
	(void)x;
	return (!of_slot || *of_slot == e->owner) && (!of_list || *of_list == e->list);
}

static void close_one(const entry *e)
{
	if (is_of(e, 0))
		pass(FN_CloseSession, &e->key);
}

/* Closes sessions underneath: all, or those on a slot or of a function list. No
 * call is under way then, since most modules crash when a session is closed
 * under one. */
void vanish_sessions(const word *slot, const int *list)
{
	int n;

	gate_shut();
	pthread_mutex_lock(&lock);
	of_slot = slot;
	of_list = list;
	table_each(&sessions, close_one);
	n = table_remove(&sessions, is_of, 0);
	board_live(-n, -table_remove(&objects, dangling, 0));
	pthread_mutex_unlock(&lock);
	gate_open();
}

static void destroy_one(const entry *e)
{
	word a[] = {e->owner, e->key};

	if (!e->token)
		pass(FN_DestroyObject, a);
}

/* Destroys the session objects underneath, and makes the handles of all others
 * invalid until they are found again. */
void vanish_objects(void)
{
	gate_shut();
	pthread_mutex_lock(&lock);
	table_each(&objects, destroy_one);
	board_live(0, -table_remove(&objects, passing, 0));
	table_remove(&objects, any, 0);
	stale = 1;
	pthread_mutex_unlock(&lock);
	gate_open();
}

static int has_vanished(const call *c)
{
	int i, nth, yes = 0;

	pthread_mutex_lock(&lock);
	for (nth = 0; stale && (i = place(c, 'o', nth)) >= 0; nth++)
		yes |= c->a[i] && !table_find(&objects, c->a[i]);
	pthread_mutex_unlock(&lock);
	return yes;
}

/* Handles found are good again. Session objects are in the table already. */
static void found(const word *handles, word n)
{
	word i;

	pthread_mutex_lock(&lock);
	for (i = 0; stale && i < n; i++)
		if (!table_find(&objects, handles[i]))
			table_add(&objects, handles[i])->token = 1;
	pthread_mutex_unlock(&lock);
}

static int operation(int fn)
{
	static const int first[] = {FN_EncryptInit, FN_DecryptInit, FN_DigestInit, FN_SignInit,
		FN_SignRecoverInit, FN_VerifyInit, FN_VerifyRecoverInit, FN_DigestEncryptUpdate};
	int i;

	for (i = 0; i < OPERATIONS; i++)
		if (fn >= first[i] && fn < first[i + 1])
			return i;
	return -1;
}

static void begun(const call *c)
{
	entry *e;

	pthread_mutex_lock(&lock);
	if ((e = table_find(&sessions, c->a[0])))
		e->mechanisms[operation(c->fn)] = ((const ck_mechanism *)c->a[1])->type;
	pthread_mutex_unlock(&lock);
}

/* The mechanism with which the operation began that a call goes on with. */
word mechanism_of(const call *c)
{
	int o = operation(c->fn);
	word type = UNAVAILABLE;
	entry *e;

	pthread_mutex_lock(&lock);
	if (o >= 0 && (e = table_find(&sessions, c->a[0])))
		type = e->mechanisms[o];
	pthread_mutex_unlock(&lock);
	return type;
}

static void account(call *c)
{
	int i, nth;

	switch (c->fn) {
	case FN_Finalize: forget_all(); return;
	case FN_OpenSession: opened(c); return;
	case FN_FindObjects: found((const word *)c->a[1], *(word *)c->a[3]); return;
	case FN_CloseAllSessions: all_closed(c->a[0]); return;
	case FN_Logout: logged_out(c->a[0]); return;
	}
	for (nth = 0; (i = place(c, 'h', nth)) >= 0; nth++)
		made(c->a[0], *(word *)c->a[i]);
	if (operation(c->fn) >= 0 && place(c, 'm', 0) >= 0 && c->a[1])
		begun(c);
}

/* Makes the real call. */
word forward(call *c)
{
	word rv;

	if (has_vanished(c))
		return CKR_OBJECT_HANDLE_INVALID;
	if (c->fn == FN_CloseSession)
		return close_session(c->a);
	if (c->fn == FN_DestroyObject)
		return destroy(c->a);
	rv = pass(c->fn, c->a);
	if (rv == CKR_OK)
		account(c);
	return rv;
}
