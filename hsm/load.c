#include "operation.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { CKR_FUNCTION_NOT_SUPPORTED = 0x54 };

/* Stands for a function that a module leaves out of its table. */
static ck_rv left_out(void)
{
	return CKR_FUNCTION_NOT_SUPPORTED;
}

/* A table without gaps. That of the module, which may change what is in it, is kept where
 * it has none (PKCS #11 v2.40, section 3.6, wants that). */
static ck_functions *without_gaps(ck_functions *f)
{
	ck_functions *whole;
	int i, gaps = 0;

	for (i = 0; i < FN_count; i++)
		gaps += !f->fn[i];
	if (!gaps || !(whole = malloc(sizeof *whole)))
		return f;
	*whole = *f;
	for (i = 0; i < FN_count; i++)
		if (!whole->fn[i])
			whole->fn[i] = (void *)left_out;
	return whole;
}

/* Without a reason it is the answer of C_GetFunctionList. */
ck_functions *msl_load(const char *path, ck_rv *rv, char *reason, ck_ulong n)
{
	ck_functions *f = 0;
	ck_get_function_list get;
	void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);

	if (!library) {
		snprintf(reason, n, "%s", dlerror());
		return 0;
	}
	get = (ck_get_function_list)dlsym(library, "C_GetFunctionList");
	if (!get) {
		snprintf(reason, n, "it has no C_GetFunctionList, so it is not a PKCS #11 module");
		dlclose(library);
		return 0;
	}
	*rv = get(&f);
	if (*rv != CKR_OK)
		return 0;
	if (!f || !f->fn[FN_Initialize]) {
		snprintf(reason, n, "its C_GetFunctionList gives no functions");
		return 0;
	}
	return without_gaps(f);
}
