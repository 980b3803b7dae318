#define _GNU_SOURCE
#include "operation.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const int taken[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGPIPE, SIGTERM, SIGURG};

/* The umask as Linux tells it without changing it (proc(5)), or -1. */
static int umask_now(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int mask = -1;

	while (f && mask < 0 && fgets(line, sizeof line, f))
		if (sscanf(line, "Umask: %o", (unsigned *)&mask) != 1)
			mask = -1;
	if (f)
		fclose(f);
	return mask;
}

void msl_keep(msl_kept *k)
{
	int i;

	for (i = 0; i < MSL_HANDLERS; i++)
		sigaction(taken[i], 0, &k->handlers[i]);
	for (i = 0; i < MSL_STREAMS; i++)
		k->streams[i] = fcntl(i, F_DUPFD_CLOEXEC, MSL_STREAMS);
	k->directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	k->umask = umask_now();
}

/* Gives a stream that was closed back. What another thread opened in its place stays there. */
static void restore_stream(int stream, int kept)
{
	int fd;

	if (fcntl(stream, F_GETFD) >= 0)
		return;
	fd = fcntl(kept, F_DUPFD_CLOEXEC, stream); /* the first from there on that is free */
	if (fd == stream)
		fcntl(fd, F_SETFD, 0);
	else if (fd >= 0)
		close(fd);
}

void msl_restore(const msl_kept *k)
{
	struct sigaction now;
	int i;

	for (i = 0; i < MSL_HANDLERS; i++)
		if (!sigaction(taken[i], 0, &now) && now.sa_handler != k->handlers[i].sa_handler)
			sigaction(taken[i], &k->handlers[i], 0);
	for (i = 0; i < MSL_STREAMS; i++)
		if (k->streams[i] >= 0)
			restore_stream(i, k->streams[i]);
	if (k->umask >= 0 && umask_now() != k->umask)
		umask((mode_t)k->umask);
	if (k->directory >= 0 && fchdir(k->directory))
		return; /* nobody may enter it any more */
}

void msl_forget(const msl_kept *k)
{
	int i;

	for (i = 0; i < MSL_STREAMS; i++)
		if (k->streams[i] >= 0)
			close(k->streams[i]);
	if (k->directory >= 0)
		close(k->directory);
}
