#ifndef HSMTEST_H
#define HSMTEST_H

#include <stdint.h>
#include <stdio.h>

#include "cryptoki.h"

enum {
	MAX_RULES = 256, MAX_NAMES = 32, MAX_PROCESSES = 64, MAX_LABEL = 33,
	ANY_FUNCTION = -1
};

/* What a rule does. */
enum {
	DOES_ANSWER = 1, DOES_DELAY = 2, DOES_HANG = 4, DOES_CRASH = 8
};

/* How a rule does it, or for how long. */
enum { AFTER = 1, UNTIL_FINALIZE = 2 };

typedef struct { word v[MAX_NAMES]; int n; } names;

/* A line of the control file. */
typedef struct {
	int line, fn;
	names attributes, mechanisms;
	word does, how;
	word skip, times;
	uint64_t duration, delay; /* nanoseconds */
	word code, signal;
	int begun, over; /* of one that ends with C_Finalize, in this process */
} rule;

/* What tells one state of the control file from another. */
typedef struct { uint64_t time, inode, size; } version;

/* The control file as read once; kept as long as a call goes by it. */
typedef struct {
	version of;
	int users, bad, n;
	char target[4096];
	rule rules[MAX_RULES];
} control;

/* The counters file: 64-bit words in the byte order of the machine, shared by
 * all processes. doc.go describes it for other readers. */
typedef struct { uint64_t seen, fired, begun; } tally;
typedef struct { int64_t pid, sessions, objects; } process;
typedef struct {
	uint64_t magic;
	version control; /* that the tallies are of */
	int64_t token_objects;
	uint64_t spare[3];
	uint64_t calls[72];
	tally rules[MAX_RULES];
	process processes[MAX_PROCESSES];
} board;

/* One call on its way. */
typedef struct { int fn; const char *roles; word *a; int list; } call;

/* control.c */
control *control_take(int again);
void control_drop(control *);
void control_finalized(void);
int control_current(const control *);
ck_functions *target(void);

/* parse.c */
int parse(control *, FILE *, const char *path);

/* board.c */
int board_open(const char *control, char *why, size_t n);
void board_reopen(void);
void board_start(version);
void board_called(int fn);
void board_live(int sessions, int objects);
void board_token_objects(int n);
int board_due(const control *, int i);

/* hsmtest.c */
word effect(const call *);

/* track.c */
word forward(const call *);
word mechanism_of(const call *);
void forget_all(void);
void track_reset(void);

/* call.c */
extern const char *const roles[FN_count];
int place(const call *, char role, int nth);
int names_attribute(const call *, const names *);
int names_mechanism(const call *, const names *);

/* obey.c */
word obey(control *, call *);

#endif
