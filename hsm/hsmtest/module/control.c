/* The control file: where it is, and taking it up when it changes. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static control *current;
static char path[4096];
static char loaded[4096];
static ck_functions *real;

#ifdef __APPLE__
#define st_mtim st_mtimespec
#endif

/* Beside the shared object, whose symbolic links are followed, or where the
 * environment says. */
static const char *where(void)
{
	const char *told;
	char resolved[4096];
	Dl_info info;

	if (*path)
		return path;
	told = getenv("HSMTEST_CONTROL");
	if (told && *told)
		snprintf(path, sizeof path, "%s", told);
	else if (dladdr((void *)where, &info) && realpath(info.dli_fname, resolved))
		snprintf(path, sizeof path, "%.4080s.control", resolved);
	return path;
}

static version look(void)
{
	struct stat s;

	if (stat(where(), &s))
		return (version){0, 0, 0};
	return (version){(uint64_t)s.st_mtim.tv_sec * 1000000000 + (uint64_t)s.st_mtim.tv_nsec,
		(uint64_t)s.st_ino, (uint64_t)s.st_size};
}

static int same(version a, version b)
{
	return a.time == b.time && a.inode == b.inode && a.size == b.size;
}

int control_current(const control *c)
{
	return same(c->of, look());
}

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "hsmtest: %s: %s\n", what, why);
	return 0;
}

/* Loads the real module, once. */
static int load(const char *target)
{
	word (*list)(ck_functions **);
	void *library;

	if (real && !strcmp(target, loaded))
		return 1;
	if (real)
		return complain(path, "the target cannot change while the module is loaded");
	library = dlopen(target, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return complain(path, dlerror());
	list = (word (*)(ck_functions **))dlsym(library, "C_GetFunctionList");
	if (!list || list(&real) != CKR_OK || !real)
		return complain(target, "it is not a PKCS #11 module");
	snprintf(loaded, sizeof loaded, "%s", target);
	return 1;
}

static int prepare(control *c)
{
	char why[4400];
	FILE *f = fopen(where(), "re");
	int ok;

	if (!f)
		return complain(path, strerror(errno));
	ok = parse(c, f, path);
	fclose(f);
	if (!ok || !load(c->target))
		return 0;
	if (!board_open(path, why, sizeof why))
		return complain("counters", why);
	board_start(c->of);
	return 1;
}

static void drop(control *c)
{
	if (c && --c->users == 0)
		free(c);
}

static void renew(version v)
{
	control *c = calloc(1, sizeof *c);

	if (!c)
		abort();
	c->of = v;
	c->users = 1;
	c->bad = !prepare(c);
	drop(current);
	current = c;
}

/* Gives the control file as it is now, or 0 if it is bad. A bad one is read, and
 * complained of, again if again is set. */
control *control_take(int again)
{
	control *c;
	version v;

	pthread_mutex_lock(&lock);
	v = look();
	if (!current || !same(current->of, v) || (again && current->bad))
		renew(v);
	c = current->bad ? 0 : current;
	if (c)
		c->users++;
	pthread_mutex_unlock(&lock);
	return c;
}

void control_drop(control *c)
{
	pthread_mutex_lock(&lock);
	drop(c);
	pthread_mutex_unlock(&lock);
}

/* Ends the rules that last until C_Finalize. */
void control_finalized(void)
{
	int i;

	pthread_mutex_lock(&lock);
	for (i = 0; current && i < current->n; i++)
		if (__atomic_load_n(&current->rules[i].begun, __ATOMIC_RELAXED))
			__atomic_store_n(&current->rules[i].over, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&lock);
}

ck_functions *target(void)
{
	return real;
}
