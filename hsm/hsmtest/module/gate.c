/* Calls under way, and waiting until there are none. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int calls, shut;

void gate_enter(void)
{
	pthread_mutex_lock(&lock);
	while (shut)
		pthread_cond_wait(&change, &lock);
	calls++;
	pthread_mutex_unlock(&lock);
}

void gate_leave(void)
{
	pthread_mutex_lock(&lock);
	if (--calls == 0)
		pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

void gate_shut(void)
{
	pthread_mutex_lock(&lock);
	while (shut)
		pthread_cond_wait(&change, &lock);
	shut = 1;
	while (calls)
		pthread_cond_wait(&change, &lock);
	pthread_mutex_unlock(&lock);
}

void gate_open(void)
{
	pthread_mutex_lock(&lock);
	shut = 0;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

void gate_reset(void)
{
	pthread_mutex_init(&lock, 0);
	pthread_cond_init(&change, 0);
	calls = shut = 0;
}
