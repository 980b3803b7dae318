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

int main(int n, char **args)
{
	void *library = dlopen(args[1], RTLD_NOW);
	functions *f;
	word session = 0, slots[64], count, rv = 0;
	unsigned char bytes[8];

	if (!library)
		return printf("%s\n", dlerror()), 1;
	setvbuf(stdout, 0, _IONBF, 0);
	f = list(library);
	for (int i = 2; i < n; i++) {
		count = 64;
		if (!strcmp(args[i], "list")) {
			f = list(library);
			continue;
		} else if (!strcmp(args[i], "fork")) {
			if (fork())
				return wait(0), 0;
			continue;
		} else if (!strcmp(args[i], "pause")) {
			getchar();
			continue;
		} else if (!strcmp(args[i], "initialize"))
			rv = f->fn[0]((void *)0);
		else if (!strcmp(args[i], "finalize"))
			rv = f->fn[1]((void *)0);
		else if (!strcmp(args[i], "slots"))
			rv = f->fn[4](0, slots, &count);
		else if (!strcmp(args[i], "open"))
			rv = f->fn[12](slots[0], 4UL, (void *)0, (void *)0, &session);
		else if (!strcmp(args[i], "random"))
			rv = f->fn[64](session, bytes, 8UL);
		printf("%s %#lx", args[i], rv);
		printf(!strcmp(args[i], "slots") ? " %#lx\n" : "\n", count);
	}
	return 0;
}
