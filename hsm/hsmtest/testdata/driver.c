/* A program that knows nothing of hsmtest: it loads the PKCS #11 module of its
 * first argument and does what the others say, telling every answer. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

typedef unsigned long word;
typedef struct { unsigned char version[sizeof(void *)]; word (*fn[68])(); } functions;

static functions *list(void *library)
{
	functions *f = 0;
	word (*get)(functions **) = (word (*)(functions **))dlsym(library, "C_GetFunctionList");
	word rv = get(&f);

	printf("C_GetFunctionList %#lx\n", rv);
	return f;
}

static functions *f;
static word session, slots[64], count;

/* Makes one call and gives its answer. */
static word make(const char *name)
{
	unsigned char bytes[8];

	count = 64;
	if (!strcmp(name, "initialize"))
		return f->fn[0]((void *)0);
	if (!strcmp(name, "finalize"))
		return f->fn[1]((void *)0);
	if (!strcmp(name, "slots"))
		return f->fn[4](0, slots, &count);
	if (!strcmp(name, "open"))
		return f->fn[12](slots[0], 4UL, (void *)0, (void *)0, &session);
	return f->fn[64](session, bytes, 8UL);
}

/* Calls every function of the list. */
static void every(void)
{
	for (int i = 0; i < 68; i++)
		printf("%d %#lx\n", i, f->fn[i](0UL, 0UL, 0UL, 0UL, 0UL, 0UL, 0UL, 0UL));
}

static void stop(const char *why)
{
	puts(why);
	getchar();
}

static void call(const char *name)
{
	word rv = make(name);

	printf("%s %#lx", name, rv);
	if (!strcmp(name, "slots"))
		printf(" %#lx", count);
	puts("");
}

int main(int n, char **args)
{
	void *library = dlopen(args[1], RTLD_NOW);

	if (!library)
		return printf("%s\n", dlerror()), 1;
	setvbuf(stdout, 0, _IONBF, 0);
	f = list(library);
	for (int i = 2; i < n; i++) {
		if (!strcmp(args[i], "list"))
			f = list(library);
		else if (!strcmp(args[i], "every"))
			every();
		else if (!strcmp(args[i], "pause"))
			stop("pause");
		else if (strcmp(args[i], "fork"))
			call(args[i]);
		else if (fork())
			return wait(0), stop("joined"), 0;
	}
	return 0;
}
