#ifndef HSMTEST_H
#define HSMTEST_H

#include <stdint.h>
#include <stdio.h>

#include "cryptoki.h"

enum {
	MAX_RULES = 256, MAX_NAMES = 32, MAX_PROCESSES = 64, MAX_LABEL = 33,
	LISTS = 16, ANY_FUNCTION = -1
};

/* What a rule does. */
enum {
	DOES_ANSWER = 1, DOES_DELAY = 2, DOES_HANG = 4, DOES_CRASH = 8,
	DOES_VANISH_SESSIONS = 0x10, DOES_VANISH_OBJECTS = 0x20, DOES_REMOVE = 0x40,
	DOES_REPLACE = 0x80, DOES_LENGTH = 0x100, DOES_MAX_SESSIONS = 0x200,
	DOES_TOLD_SESSIONS = 0x400, DOES_MAX_PART = 0x800, DOES_UNKNOWN = 0x1000,
	DOES_FRESH_LIST = 0x2000, DOES_REVEAL = 0x4000, DOES_IGNORE = 0x8000,
	DOES_IMITATE = 0x10000, DOES_TOKEN_ONLY = 0x20000, DOES_LEAK = 0x40000,
	DOES_OFFICER = 0x80000, DOES_GARBLE = 0x100000, DOES_FLAGS = 0x200000,
	DOES_LIST = 0x400000, DOES_WRITE_PROTECT = 0x800000, DOES_KEY_SIZE = 0x1000000,
	DOES_MAX_FOUND = 0x2000000, DOES_TELL = 0x4000000
};

/* How a rule does it, or for how long. */
enum { AFTER = 1, UNTIL_FINALIZE = 2, SAME_LABEL = 4, SAME_SERIAL = 8, PRETEND = 16, DRAWS_IV = 32 };

typedef struct { word v[MAX_NAMES]; int n; } names;

/* A line of the control file. */
typedef struct {
	int line, fn;
	names attributes, mechanisms;
	word does, how;
	word skip, times;
	uint64_t duration, delay; /* nanoseconds */
	word code, signal, length, max_sessions, told_sessions, max_part, max_found, as, pad, leak;
	word set, clear, listed, key_size, told;
	char token[MAX_LABEL], replace[MAX_LABEL];
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

/* One call on its way, and the rules that hit it. */
typedef struct {
	int fn;
	const char *roles;
	word *a;
	int list, reserved, n;
	rule *hit[MAX_RULES];
} call;

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
word give_list(call *);

/* lists.c */
word forward_known(call *);
word effect(call *);
void lists_reset(void);

/* tokens.c */
int is_of_tokens(const call *);
int removed(const rule *, const call *, word *rv);
int is_slot_removed(const call *, word slot);
word swap_tokens(call *);
void tell_token(const call *);
void unswap(void);

/* attributes.c */
word forward_list(call *, int (*leave_out)(const call *, word));
word read_attributes(call *);
word forward_relaxed(call *);
int is_mechanism_unknown(const call *, word type);
word list_as_many(call *);

/* imitate.c */
word imitate(call *);

/* officer.c */
word with_officer(call *);

/* track.c */
word pass(int fn, const word *a);
word forward(call *);
word mechanism_of(const call *);
int room(call *, word max);
void unreserve(call *);
int session_on(word session, word *slot, int *list);
void remember(word object, word asked);
word remembered(word object);
void vanish_sessions(const word *slot, const int *list);
void vanish_objects(void);
void track_reset(void);

/* gate.c */
void gate_enter(void);
void gate_leave(void);
void gate_shut(void);
void gate_open(void);
void gate_reset(void);

/* call.c */
extern const char *const roles[FN_count];
int place(const call *, char role, int nth);
int in(const names *, word);
const rule *hit_by(const call *, word does);
int names_attribute(const call *, const names *);
int names_mechanism(const call *, const names *);

/* obey.c */
int makes_longer(const rule *, const call *);
word obey(control *, call *);

#endif
