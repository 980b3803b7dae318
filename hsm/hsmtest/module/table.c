/* A table from handles to what is known of them. */
#include "table.h"

#include <stdlib.h>

static size_t bucket(word key)
{
	return (size_t)((key ^ key >> 12) % TABLE_BUCKETS);
}

entry *table_find(table *t, word key)
{
	entry *e = t->buckets[bucket(key)];

	while (e && e->key != key)
		e = e->next;
	return e;
}

/* Adds a key, or gives the one that is there, emptied. */
entry *table_add(table *t, word key)
{
	entry *e = table_find(t, key), **head = &t->buckets[bucket(key)];

	if (!e) {
		e = malloc(sizeof *e);
		if (!e)
			abort();
		*e = (entry){.key = key, .next = *head};
		*head = e;
		t->n++;
	}
	*e = (entry){.key = key, .next = e->next};
	return e;
}

void table_each(table *t, void (*visit)(const entry *))
{
	size_t i;

	for (i = 0; i < TABLE_BUCKETS && t->n; i++)
		for (entry *e = t->buckets[i]; e; e = e->next)
			visit(e);
}

/* Puts back what was removed. */
void table_put(table *t, const entry *was)
{
	entry *e = table_add(t, was->key), *next = e->next;

	*e = *was;
	e->next = next;
}

/* Removes what which says yes to, and says how many there were. */
int table_remove(table *t, int (*which)(const entry *, word), word about)
{
	int n = 0;
	size_t i;

	for (i = 0; i < TABLE_BUCKETS && t->n; i++) {
		entry **p = &t->buckets[i];
		while (*p) {
			entry *e = *p;
			if (!which(e, about)) {
				p = &e->next;
				continue;
			}
			*p = e->next;
			free(e);
			t->n--;
			n++;
		}
	}
	return n;
}
