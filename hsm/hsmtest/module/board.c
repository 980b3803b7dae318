/* The counters file, and which calls a rule hits. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x31747365746d7368ULL /* "hsmtest1" on a little-endian machine */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char path[4200];
static board *shared;
static process *self;
static int fd = -1;

/* The mutex keeps the threads of this process apart, the lock on the file the
 * processes; the kernel takes the latter from one that dies. */
static void hold(void)
{
	pthread_mutex_lock(&lock);
	while (flock(fd, LOCK_EX) && errno == EINTR)
		;
}

static void leave(void)
{
	flock(fd, LOCK_UN);
	pthread_mutex_unlock(&lock);
}

static int gone(const process *p)
{
	return p->pid == 0 || (kill((pid_t)p->pid, 0) && errno == ESRCH);
}

/* Finds this process the place that it had before the module was unloaded, or
 * that of one that died. If all are taken, the last is shared. */
static void settle(void)
{
	int i = 0;

	while (i < MAX_PROCESSES && shared->processes[i].pid != getpid())
		i++;
	for (i %= MAX_PROCESSES; i < MAX_PROCESSES - 1; i++)
		if (shared->processes[i].pid == getpid() || gone(&shared->processes[i]))
			break;
	self = &shared->processes[i];
	*self = (process){getpid(), 0, 0};
}

static int map(void)
{
	struct { int made; off_t size; } f;

	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	flock(fd, LOCK_EX);
	f.size = lseek(fd, 0, SEEK_END);
	f.made = f.size < (off_t)sizeof(board) && ftruncate(fd, sizeof(board)) == 0;
	if (f.made || f.size >= (off_t)sizeof(board))
		shared = mmap(0, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		shared = 0;
	if (shared) {
		shared->magic = MAGIC;
		settle();
	}
	flock(fd, LOCK_UN);
	return shared != 0;
}

int board_open(const char *control, char *why, size_t n)
{
	int ok;

	pthread_mutex_lock(&lock);
	snprintf(path, sizeof path, "%s.counters", control);
	ok = shared || map();
	pthread_mutex_unlock(&lock);
	if (!ok)
		snprintf(why, n, "%s: %s", path, strerror(errno));
	return ok;
}

/* For the child of a fork, which shares the lock of its parent until then. */
void board_reopen(void)
{
	if (!shared)
		return;
	pthread_mutex_init(&lock, 0);
	munmap(shared, sizeof(board));
	close(fd);
	shared = 0;
	if (!map())
		fprintf(stderr, "hsmtest: %s: %s\n", path, strerror(errno));
}

static int same(version a, version b)
{
	return a.time == b.time && a.inode == b.inode && a.size == b.size;
}

/* Begins to count for another control file, unless another process did. */
void board_start(version v)
{
	hold();
	if (!same(shared->control, v)) {
		memset(shared->rules, 0, sizeof shared->rules);
		shared->control = v;
	}
	leave();
}

void board_called(int fn)
{
	__atomic_add_fetch(&shared->calls[fn], 1, __ATOMIC_RELAXED);
}

void board_live(int sessions, int objects)
{
	__atomic_add_fetch(&self->sessions, sessions, __ATOMIC_RELAXED);
	__atomic_add_fetch(&self->objects, objects, __ATOMIC_RELAXED);
}

void board_token_objects(int n)
{
	__atomic_add_fetch(&shared->token_objects, n, __ATOMIC_RELAXED);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Counts a call that a rule is for, and says whether it is to be hit. */
static int hits(const rule *r, tally *t)
{
	uint64_t n = t->seen++;

	if (n < r->skip || __atomic_load_n(&r->over, __ATOMIC_RELAXED))
		return 0;
	if (r->times && n - r->skip >= r->times)
		return 0;
	if (!t->begun)
		t->begun = now();
	return !r->duration || now() - t->begun < r->duration;
}

/* Counts a call for a rule that hits all, without keeping others waiting. */
static int hits_all(const control *c, const rule *r, tally *t)
{
	int hit = same(shared->control, c->of) && !__atomic_load_n(&r->over, __ATOMIC_RELAXED);

	__atomic_add_fetch(&t->seen, (uint64_t)hit, __ATOMIC_RELAXED);
	__atomic_add_fetch(&t->fired, (uint64_t)hit, __ATOMIC_RELAXED);
	return hit;
}

int board_due(const control *c, int i)
{
	const rule *r = &c->rules[i];
	tally *t = &shared->rules[i];
	int hit;

	if (!r->skip && !r->times && !r->duration)
		return hits_all(c, r, t);
	hold();
	hit = same(shared->control, c->of) && hits(r, t);
	t->fired += (uint64_t)hit;
	leave();
	return hit;
}
