#include "operation.h"

static const int taken[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGURG};

void msl_keep_handlers(msl_handlers *h)
{
	int i;

	for (i = 0; i < MSL_HANDLERS; i++)
		sigaction(taken[i], 0, &h->of[i]);
}

void msl_restore_handlers(const msl_handlers *h)
{
	struct sigaction now;
	int i;

	for (i = 0; i < MSL_HANDLERS; i++)
		if (!sigaction(taken[i], 0, &now) && now.sa_handler != h->of[i].sa_handler)
			sigaction(taken[i], &h->of[i], 0);
}
