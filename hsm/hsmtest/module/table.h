#ifndef HSMTEST_TABLE_H
#define HSMTEST_TABLE_H

#include <stddef.h>

#include "cryptoki.h"

enum { TABLE_BUCKETS = 4096, OPERATIONS = 7 };

typedef struct entry {
	struct entry *next;
	word key;
	word owner;                  /* a session's slot, a session object's session */
	int list;                    /* a session's function list */
	int token;                   /* a token object */
	word asked;                  /* what a template asked for in vain */
	word mechanisms[OPERATIONS]; /* of a session's operations */
} entry;

typedef struct { entry *buckets[TABLE_BUCKETS]; int n; } table;

entry *table_find(table *, word key);
entry *table_add(table *, word key);
void table_put(table *, const entry *was);
void table_each(table *, void (*)(const entry *));
int table_remove(table *, int (*which)(const entry *, word), word about);

#endif
