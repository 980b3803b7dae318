/* The grammar of the control file, which doc.go describes. */
#define _GNU_SOURCE
#include "hsmtest.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#include "names.h"

typedef struct { const char *name; word value; } named;

#define NAMED_FUNCTION(list, name, arity, roles) {"C_" #name, FN_##name},
#define NAMED_CODE(name, value) {"CKR_" #name, value},
#define NAMED_ATTRIBUTE(name, value) {"CKA_" #name, value},
#define NAMED_MECHANISM(name, value) {"CKM_" #name, value},
static const named functions[] = { FUNCTIONS(NAMED_FUNCTION, 0) {"*", (word)ANY_FUNCTION}, {0, 0} };
static const named codes[] = { CODES(NAMED_CODE) {0, 0} };
static const named attributes[] = { ATTRIBUTES(NAMED_ATTRIBUTE) {0, 0} };
static const named mechanisms[] = { MECHANISMS(NAMED_MECHANISM) {0, 0} };
static const named signals[] = { {"segv", SIGSEGV}, {"abort", SIGABRT}, {0, 0} };
static const named units[] = { {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {0, 0} };

static int look(const named *table, const char *text, word *value)
{
	for (; table->name; table++)
		if (!strcmp(table->name, text)) {
			*value = table->value;
			return 1;
		}
	return 0;
}

/* A number: decimal, 0x hexadecimal, ~N for its complement, or N<<M. */
static int number(const char *text, word *value)
{
	int complement = *text == '~';
	word shift = 0;
	char *end;

	text += complement;
	if (!isdigit((unsigned char)*text))
		return 0;
	errno = 0;
	*value = strtoul(text, &end, 0);
	if (!strncmp(end, "<<", 2) && isdigit((unsigned char)end[2]))
		shift = strtoul(end + 2, &end, 10);
	if (errno || *end || shift >= 8 * sizeof(word))
		return 0;
	*value <<= shift;
	if (complement)
		*value = ~*value;
	return 1;
}

static int plain(char *text, void *to) { return number(text, to); }

static int code(char *text, void *to) { return look(codes, text, to) || number(text, to); }

static int signal_name(char *text, void *to) { return look(signals, text, to); }

static int duration(char *text, void *to)
{
	char *end;
	word n, unit;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || errno || !look(units, end, &unit))
		return 0;
	*(uint64_t *)to = (uint64_t)n * unit;
	return n > 0 && n < UINT64_MAX / unit;
}

static int list(const named *table, char *text, names *to)
{
	char *rest = text, *one;

	while ((one = strsep(&rest, ","))) {
		word *value = &to->v[to->n];
		if (to->n == MAX_NAMES || !(look(table, one, value) || number(one, value)))
			return 0;
		to->n++;
	}
	return 1;
}

static int attribute(char *text, void *to) { return list(attributes, text, to); }

static int mechanism(char *text, void *to) { return list(mechanisms, text, to); }

static int one_mechanism(char *text, void *to) { return look(mechanisms, text, to) || number(text, to); }

static int label(char *text, void *to)
{
	size_t n = strlen(text);

	if (!n || n >= MAX_LABEL)
		return 0;
	memcpy(to, text, n + 1);
	return 1;
}

/* The words of a rule: how the value of one is read and where it goes, and what
 * the word makes the rule do. */
static const struct {
	const char *name;
	int (*read)(char *text, void *to);
	size_t to;
	word does, how;
} words[] = {
	{"attribute", attribute, offsetof(rule, attributes), 0, 0},
	{"mechanism", mechanism, offsetof(rule, mechanisms), 0, 0},
	{"skip", plain, offsetof(rule, skip), 0, 0},
	{"times", plain, offsetof(rule, times), 0, 0},
	{"for", duration, offsetof(rule, duration), 0, 0},
	{"until-finalize", 0, 0, 0, UNTIL_FINALIZE},
	{"after", 0, 0, 0, AFTER},
	{"code", code, offsetof(rule, code), DOES_ANSWER, 0},
	{"delay", duration, offsetof(rule, delay), DOES_DELAY, 0},
	{"hang", 0, 0, DOES_HANG, 0},
	{"crash", signal_name, offsetof(rule, signal), DOES_CRASH, 0},
	{"leak", plain, offsetof(rule, leak), DOES_LEAK, 0},
	{"vanish-sessions", 0, 0, DOES_VANISH_SESSIONS, 0},
	{"vanish-objects", 0, 0, DOES_VANISH_OBJECTS, 0},
	{"removed", 0, 0, DOES_REMOVE, 0},
	{"token", label, offsetof(rule, token), 0, 0},
	{"replace", label, offsetof(rule, replace), DOES_REPLACE, 0},
	{"same-label", 0, 0, 0, SAME_LABEL},
	{"same-serial", 0, 0, 0, SAME_SERIAL},
	{"length", plain, offsetof(rule, length), DOES_LENGTH, 0},
	{"garble", 0, 0, DOES_GARBLE, 0},
	{"tell", plain, offsetof(rule, told), DOES_TELL, 0},
	{"max-sessions", plain, offsetof(rule, max_sessions), DOES_MAX_SESSIONS, 0},
	{"told-sessions", plain, offsetof(rule, told_sessions), DOES_TOLD_SESSIONS, 0},
	{"max-part", plain, offsetof(rule, max_part), DOES_MAX_PART, 0},
	{"max-found", plain, offsetof(rule, max_found), DOES_MAX_FOUND, 0},
	{"unknown", 0, 0, DOES_UNKNOWN, 0},
	{"fresh-list", 0, 0, DOES_FRESH_LIST, 0},
	{"reveal", 0, 0, DOES_REVEAL, 0},
	{"ignore", 0, 0, DOES_IGNORE, 0},
	{"pretend", 0, 0, 0, PRETEND},
	{"as", one_mechanism, offsetof(rule, as), DOES_IMITATE, 0},
	{"token-objects-only", 0, 0, DOES_TOKEN_ONLY, 0},
	{"officer-trusts", 0, 0, DOES_OFFICER, 0},
	{"pad", plain, offsetof(rule, pad), 0, 0},
	{"set-flags", plain, offsetof(rule, set), DOES_FLAGS, 0},
	{"clear-flags", plain, offsetof(rule, clear), DOES_FLAGS, 0},
	{"listed", plain, offsetof(rule, listed), DOES_LIST, 0},
	{"key-size", plain, offsetof(rule, key_size), DOES_KEY_SIZE, 0},
	{"write-protected", 0, 0, DOES_WRITE_PROTECT, 0},
	{"draws-iv", 0, 0, 0, DRAWS_IV},
};

static const char *read_word(rule *r, char *text)
{
	char *value = text;
	size_t i;

	strsep(&value, "=");
	for (i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(words[i].name, text))
			continue;
		if (!words[i].read != !value)
			return value ? "takes no value" : "needs a value";
		if (value && !words[i].read(value, (char *)r + words[i].to))
			return "has a value that is not known";
		r->does |= words[i].does;
		r->how |= words[i].how;
		return 0;
	}
	return "is not known";
}

/* The next word of a line. Quotation marks hold one with blanks together; they
 * are taken out. */
static char *next(char **rest)
{
	char *from = *rest + strspn(*rest, " \t\r\n"), *to = from, *word = from;
	int quoted = 0;

	for (; *from && (quoted || !strchr(" \t\r\n", *from)); from++)
		if (*from == '"')
			quoted = !quoted;
		else
			*to++ = *from;
	*rest = from + (*from != 0);
	if (from == word)
		return 0;
	*to = 0;
	return word;
}

static int odd_quotes(const char *text)
{
	int odd = 0;

	for (; *text; text++)
		odd ^= *text == '"';
	return odd;
}

/* What is wrong with a rule as a whole, or 0. */
static const char *check(const rule *r)
{
	if (!r->does)
		return "the rule does nothing; add code=, delay=, hang or another";
	if (r->does & DOES_UNKNOWN && !r->attributes.n && !r->mechanisms.n)
		return "unknown needs attribute= or mechanism=";
	if (r->does & (DOES_IGNORE | DOES_TELL) && !r->attributes.n)
		return "ignore and tell need attribute=";
	if (r->does & DOES_IMITATE && (r->mechanisms.n != 1 || r->pad > 16))
		return "as needs one mechanism=, and pad= of no more than 16";
	if (r->does & DOES_REPLACE && (!*r->token || r->fn != ANY_FUNCTION))
		return "replace needs token=, and * as the function";
	if (!(r->does & (DOES_LENGTH | DOES_GARBLE)) || r->fn == ANY_FUNCTION || r->fn == FN_GetAttributeValue)
		return 0;
	return strchr(roles[r->fn], '#') ? 0 : "the function tells no length";
}

static int complain(const char *path, int line, const char *text, const char *why)
{
	fprintf(stderr, "hsmtest: %s:%d: %s%s%s\n", path, line, text, *text ? " " : "", why);
	return 0;
}

static int read_rule(control *c, char *text, const char *path, int line)
{
	rule *r = &c->rules[c->n];
	char *rest = text, *one;
	const char *why;
	word fn;

	if (c->n == MAX_RULES)
		return complain(path, line, "", "there are more than 256 rules");
	if (odd_quotes(text))
		return complain(path, line, "", "a quotation mark is not closed");
	one = next(&rest);
	if (!look(functions, one, &fn))
		return complain(path, line, one, "is not a function of PKCS #11 v2.40, nor *");
	*r = (rule){.line = line, .fn = (int)fn};
	while ((one = next(&rest)))
		if ((why = read_word(r, one)))
			return complain(path, line, one, why);
	if ((why = check(r)))
		return complain(path, line, "", why);
	if (r->does & DOES_REVEAL && !r->attributes.n)
		r->attributes = (names){{CKA_VALUE}, 1};
	c->n++;
	return 1;
}

static int read_target(control *c, char *text, const char *path, int line)
{
	size_t n = strlen(text);

	while (n && isspace((unsigned char)text[n - 1]))
		text[--n] = 0;
	if (*text != '/' || n >= sizeof c->target)
		return complain(path, line, text, "is not the absolute path of a module");
	memcpy(c->target, text, n + 1);
	return 1;
}

static int read_line(control *c, char *text, const char *path, int line)
{
	text += strspn(text, " \t\r\n");
	if (!*text || *text == '#')
		return 1;
	if (!strncmp(text, "target ", 7))
		return read_target(c, text + 7 + strspn(text + 7, " \t"), path, line);
	return read_rule(c, text, path, line);
}

/* Reads the whole file; what is wrong in it is told on standard error. */
int parse(control *c, FILE *f, const char *path)
{
	char *text = 0;
	size_t room = 0;
	ssize_t n;
	int line = 0, ok = 1;

	while ((n = getline(&text, &room, f)) >= 0) {
		line++;
		if (strlen(text) != (size_t)n)
			ok = complain(path, line, "", "there is a byte of zero");
		else
			ok &= read_line(c, text, path, line);
	}
	free(text);
	if (ferror(f))
		return complain(path, line, "", strerror(errno));
	if (!*c->target)
		return complain(path, line, "", "there is no line \"target /path/of/the/real/module.so\"");
	return ok;
}
