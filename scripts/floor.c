/* How fast a PKCS #11 module is by itself: the C_ functions that a server calls
 * for each message, in the same order and on data of the same size, with nothing
 * around them. It makes a token of its own in the free slot of the module's
 * configuration.
 *
 *	floor MODULE SECONDS
 *
 * prints a line "name threads rate" for echoes in 1, 2 and 4 threads. Without SECONDS it
 * reads names of sequences, one a line, runs each for a turn, and prints "runs nanoseconds". */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../hsm/cryptoki.h"

enum { FN_VerifyInit = 48, FN_Verify = 49 };
enum { CKM_RSA_PKCS = 1, CKM_OAEP = 9, CKM_RSA_GEN = 0, CKM_HMAC = 0x251, CKM_GENERIC = 0x350,
	CKM_AES_GEN = 0x1080, CKM_CBC = 0x1082, CKM_KW = 0x2109 };
enum { HEADER = 128, PAYLOAD = 1456, HEADER_ENVELOPE = 265, PAYLOAD_ENVELOPE = 2035, TOKEN = 700 };

typedef ck_rv (*ck_initialize)(void *);
typedef ck_rv (*ck_slots)(ck_byte present, ck_ulong *, ck_ulong *);
typedef ck_rv (*ck_verify)(ck_ulong session, ck_byte *in, ck_ulong n, ck_byte *signature, ck_ulong m);
typedef ck_rv (*ck_open)(ck_ulong slot, ck_ulong flags, void *, void *, ck_ulong *);

static ck_functions *f;
static ck_ulong slot;
static double seconds;
#define CALL(type, name) ((type)f->fn[FN_##name])
#define MUST(call) do { ck_rv rv = (call); if (rv) { \
	fprintf(stderr, "floor: %s: 0x%lx\n", #call, rv); exit(1); } } while (0)

static ck_byte yes = 1, no = 0, iv[16], pin[] = "floor-pin";
static ck_byte data[4096];

static ck_ulong session(void) {
	ck_ulong s;
	MUST(CALL(ck_open, OpenSession)(slot, 6, 0, 0, &s)); /* serial, read-write */
	return s;
}

/* A secret key: an AES key of that many bytes, or a generic secret. */
static ck_ulong secret(ck_ulong s, ck_ulong mechanism, ck_ulong size, int token, int usage, int extractable) {
	ck_ulong key, class = 4, type = mechanism == CKM_AES_GEN ? 0x1f : 0x10;
	ck_byte *u[6] = { &no, &no, &no, &no, &no, &no };
	u[usage] = &yes;
	if (usage != 2) u[usage + 1] = &yes; /* encrypt and decrypt, wrap and unwrap */
	ck_attribute t[] = {
		{ 0, &class, sizeof class }, { 0x100, &type, sizeof type }, { 0x161, &size, sizeof size },
		{ 1, token ? &yes : &no, 1 }, { 2, &yes, 1 }, { 0x103, &yes, 1 }, { 0x162, extractable ? &yes : &no, 1 },
		{ 0x104, u[0], 1 }, { 0x105, u[1], 1 }, { 0x108, u[2], 1 }, { 0x106, u[4], 1 }, { 0x107, u[5], 1 },
	};
	ck_mechanism m = { mechanism, 0, 0 };
	MUST(CALL(ck_generate, GenerateKey)(s, &m, t, sizeof t / sizeof *t, &key));
	return key;
}

static void pair(ck_ulong s, ck_ulong *pub, ck_ulong *priv) {
	ck_ulong bits = 2048;
	ck_byte e[] = { 1, 0, 1 };
	ck_attribute p[] = { { 0x121, &bits, sizeof bits }, { 0x122, e, sizeof e }, { 0x106, &yes, 1 }, { 1, &no, 1 }, { 0x10a, &yes, 1 } };
	ck_attribute q[] = { { 1, &yes, 1 }, { 2, &yes, 1 }, { 0x103, &yes, 1 }, { 0x108, &yes, 1 } };
	ck_mechanism m = { CKM_RSA_GEN, 0, 0 };
	MUST(CALL(ck_generate_pair, GenerateKeyPair)(s, &m, p, sizeof p / sizeof *p, q, 4, pub, priv));
}

/* The keys of a server and of one device's session. */
typedef struct {
	ck_ulong s, aes, mac, pskAES, pskMAC, pskWrap, kek, sealMAC, issuerAES, issuerMAC, pub, priv;
	ck_byte blob[64], modulus[256], signature[256];
	ck_ulong bloblen;
} server;

static void mac(server *k, ck_ulong key, ck_ulong n) {
	ck_byte out[32];
	ck_ulong m = sizeof out;
	ck_mechanism mech = { CKM_HMAC, 0, 0 };
	MUST(CALL(ck_init, SignInit)(k->s, &mech, key));
	MUST(CALL(ck_final, Sign)(k->s, data, n, out, &m));
}

static void crypt(server *k, int decrypt, ck_ulong key, ck_ulong n) {
	ck_byte out[4096];
	ck_ulong m = sizeof out;
	ck_mechanism mech = { CKM_CBC, iv, sizeof iv };
	if (decrypt) {
		MUST(CALL(ck_init, DecryptInit)(k->s, &mech, key));
		MUST(CALL(ck_final, Decrypt)(k->s, data, n, out, &m));
	} else {
		MUST(CALL(ck_init, EncryptInit)(k->s, &mech, key));
		MUST(CALL(ck_final, Encrypt)(k->s, data, n, out, &m));
	}
}

static void rsa(server *k) {
	ck_ulong m = sizeof k->signature;
	ck_mechanism mech = { CKM_RSA_PKCS, 0, 0 };
	MUST(CALL(ck_init, SignInit)(k->s, &mech, k->priv));
	MUST(CALL(ck_final, Sign)(k->s, data, 51, k->signature, &m));
}

static void verify(server *k) {
	ck_mechanism mech = { CKM_RSA_PKCS, 0, 0 };
	MUST(CALL(ck_init, VerifyInit)(k->s, &mech, k->pub));
	MUST(CALL(ck_verify, Verify)(k->s, data, 51, k->signature, sizeof k->signature));
}

static ck_ulong wrap(server *k, ck_ulong kek, ck_ulong key, ck_byte *out) {
	ck_ulong m = 256;
	ck_oaep p = { 0x220, 1, 1, 0, 0 };
	ck_mechanism kw = { CKM_KW, 0, 0 }, oaep = { CKM_OAEP, &p, sizeof p };
	MUST(CALL(ck_wrap, WrapKey)(k->s, kek == k->pub ? &oaep : &kw, kek, key, out, &m));
	return m;
}

static void destroy(server *k, ck_ulong key) { MUST(CALL(ck_destroy, DestroyObject)(k->s, key)); }

static void readback(server *k, ck_ulong key) {
	ck_byte a, b;
	ck_attribute t[] = { { 0x103, &a, 1 }, { 0x162, &b, 1 } };
	MUST(CALL(ck_attributes, GetAttributeValue)(k->s, key, t, 2));
}

static void unwrap(server *k) {
	ck_ulong key, class = 4, type = 0x1f;
	ck_attribute t[] = { { 0, &class, sizeof class }, { 0x100, &type, sizeof type }, { 1, &no, 1 }, { 2, &yes, 1 },
		{ 0x103, &yes, 1 }, { 0x162, &no, 1 }, { 0x104, &yes, 1 }, { 0x105, &yes, 1 } };
	ck_mechanism kw = { CKM_KW, 0, 0 };
	MUST(CALL(ck_unwrap, UnwrapKey)(k->s, &kw, k->kek, k->blob, k->bloblen, t, 8, &key));
	readback(k, key);
	destroy(k, key);
}

/* What one message in a session asks of the server. */
static void echo(server *k) {
	mac(k, k->mac, HEADER_ENVELOPE);
	crypt(k, 1, k->aes, HEADER);
	mac(k, k->mac, PAYLOAD_ENVELOPE);
	crypt(k, 1, k->aes, PAYLOAD);
	crypt(k, 0, k->aes, HEADER);
	mac(k, k->mac, HEADER_ENVELOPE);
	crypt(k, 0, k->aes, PAYLOAD);
	mac(k, k->mac, PAYLOAD_ENVELOPE);
}

/* New session keys: wrapped for the peer under kek, sealed, locked. */
static void issue(server *k, ck_ulong kek, ck_ulong *aes, ck_ulong *hmac) {
	ck_byte out[256];
	ck_attribute lock = { 0x162, &no, 1 };
	*aes = secret(k->s, CKM_AES_GEN, 16, 0, 0, 1);
	readback(k, *aes);
	*hmac = secret(k->s, CKM_GENERIC, 32, 0, 2, 1);
	readback(k, *hmac);
	wrap(k, kek, *aes, out);
	wrap(k, kek, *hmac, out);
	for (int i = 0; i < 2; i++) {
		ck_ulong key = i ? *hmac : *aes;
		wrap(k, k->kek, key, out);
		mac(k, k->sealMAC, 128);
		MUST(CALL(ck_attributes, SetAttributeValue)(k->s, key, &lock, 1));
		readback(k, key);
	}
	crypt(k, 0, k->issuerAES, 368);
	mac(k, k->issuerMAC, TOKEN);
}

/* A first message of a device with pre-shared keys, and its answer. */
static void handshakePSK(server *k) {
	ck_ulong aes, hmac;
	mac(k, k->pskMAC, HEADER_ENVELOPE);
	crypt(k, 1, k->pskAES, HEADER);
	mac(k, k->pskMAC, PAYLOAD_ENVELOPE);
	crypt(k, 1, k->pskAES, PAYLOAD);
	issue(k, k->pskWrap, &aes, &hmac);
	rsa(k);
	crypt(k, 0, aes, PAYLOAD);
	mac(k, hmac, PAYLOAD_ENVELOPE);
	destroy(k, aes);
	destroy(k, hmac);
}

/* A handshake with the device's RSA key, and the message that follows it. */
static void handshakeRSA(server *k) {
	ck_ulong aes, hmac, peer[2], class = 2, type = 0;
	ck_byte e[] = { 1, 0, 1 };
	ck_attribute t[] = { { 0, &class, sizeof class }, { 0x100, &type, sizeof type }, { 1, &no, 1 },
		{ 0x106, &yes, 1 }, { 0x120, k->modulus, 256 }, { 0x122, e, sizeof e } };
	verify(k); /* of the device's first message */
	for (int i = 0; i < 2; i++) /* the module holds the peer's key for each wrap */
		MUST(CALL(ck_create, CreateObject)(k->s, t, 6, &peer[i]));
	issue(k, k->pub, &aes, &hmac);
	destroy(k, peer[0]);
	destroy(k, peer[1]);
	rsa(k);
	ck_ulong kept[] = { k->aes, k->mac };
	k->aes = aes, k->mac = hmac;
	echo(k);
	k->aes = kept[0], k->mac = kept[1];
	destroy(k, aes);
	destroy(k, hmac);
}

static void opHMAC(server *k) { mac(k, k->mac, 1024); }
static void opEncrypt(server *k) { crypt(k, 0, k->aes, 1040); }
static void opDecrypt(server *k) { crypt(k, 1, k->aes, 1040); }
static void opGenerate(server *k) {
	ck_ulong key = secret(k->s, CKM_AES_GEN, 16, 0, 0, 1);
	readback(k, key);
	destroy(k, key);
}
static void opUnseal(server *k) { mac(k, k->sealMAC, 128); unwrap(k); }

typedef struct { pthread_t id; server k; void (*run)(server *); long done; } worker;
static pthread_barrier_t start;
static volatile int stop;

static void *work(void *arg) {
	worker *w = arg;
	pthread_barrier_wait(&start);
	while (!stop) w->run(&w->k), w->done++;
	return 0;
}

static void measure(const char *name, int threads, void (*run)(server *), server *shared) {
	worker w[8];
	struct timespec a, b, t = { (long)seconds, (long)(1e9 * (seconds - (long)seconds)) };
	long done = 0;
	stop = 0;
	pthread_barrier_init(&start, 0, threads + 1);
	for (int i = 0; i < threads; i++) {
		w[i] = (worker){ .k = *shared, .run = run };
		w[i].k.s = session();
		pthread_create(&w[i].id, 0, work, &w[i]);
	}
	pthread_barrier_wait(&start);
	clock_gettime(CLOCK_MONOTONIC, &a);
	nanosleep(&t, 0);
	stop = 1;
	for (int i = 0; i < threads; i++) pthread_join(w[i].id, 0), done += w[i].done;
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%s %d %.0f\n", name, threads, done / (b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9));
	fflush(stdout);
}

static const struct { const char *name; void (*run)(server *); } sequences[] = {
	{ "echo", echo }, { "PSK", handshakePSK }, { "RSA", handshakeRSA }, { "hmac", opHMAC }, { "encrypt", opEncrypt },
	{ "decrypt", opDecrypt }, { "sign", rsa }, { "generate", opGenerate }, { "unseal", opUnseal },
};

/* A turn is 20 ms, and one run at least. */
static void turn(server *k, void (*run)(server *)) {
	struct timespec a, b;
	long done = 0, ns = 0;
	clock_gettime(CLOCK_MONOTONIC, &a);
	do {
		run(k), done++;
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec;
	} while (ns < 20000000L);
	printf("%ld %ld\n", done, ns);
	fflush(stdout);
}

/* Runs what standard input asks for. */
static int turns(server *k) {
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		size_t i = 0, n = sizeof sequences / sizeof *sequences;
		line[strcspn(line, "\n")] = 0;
		while (i < n && strcmp(line, sequences[i].name)) i++;
		if (i == n) {
			fprintf(stderr, "floor: no sequence \"%s\"\n", line);
			return 2;
		}
		turn(k, sequences[i].run);
	}
	return 0;
}

static void setUp(server *k) {
	ck_ulong n = 16, slots[16];
	ck_byte label[32];
	memset(label, ' ', sizeof label);
	memcpy(label, "floor", 5);
	MUST(CALL(ck_slots, GetSlotList)(1, slots, &n));
	slot = slots[n - 1]; /* SoftHSM keeps its free slot last */
	MUST(CALL(ck_init_token, InitToken)(slot, pin, sizeof pin - 1, label));
	k->s = session();
	MUST(CALL(ck_login, Login)(k->s, 0, pin, sizeof pin - 1));
	MUST(CALL(ck_init_pin, InitPIN)(k->s, pin, sizeof pin - 1));
	ck_rv (*logout)(ck_ulong) = (ck_rv (*)(ck_ulong))f->fn[19];
	MUST(logout(k->s));
	MUST(CALL(ck_login, Login)(k->s, 1, pin, sizeof pin - 1));
	k->aes = secret(k->s, CKM_AES_GEN, 16, 0, 0, 1);
	k->mac = secret(k->s, CKM_GENERIC, 32, 0, 2, 0);
	k->pskAES = secret(k->s, CKM_AES_GEN, 16, 0, 0, 0);
	k->pskMAC = secret(k->s, CKM_GENERIC, 32, 0, 2, 0);
	k->pskWrap = secret(k->s, CKM_AES_GEN, 16, 0, 4, 0);
	k->kek = secret(k->s, CKM_AES_GEN, 32, 1, 4, 0);
	k->sealMAC = secret(k->s, CKM_GENERIC, 32, 1, 2, 0);
	k->issuerAES = secret(k->s, CKM_AES_GEN, 16, 1, 0, 0);
	k->issuerMAC = secret(k->s, CKM_GENERIC, 32, 1, 2, 0);
	pair(k->s, &k->pub, &k->priv);
	ck_attribute modulus = { 0x120, k->modulus, sizeof k->modulus };
	MUST(CALL(ck_attributes, GetAttributeValue)(k->s, k->pub, &modulus, 1));
	k->bloblen = wrap(k, k->kek, k->aes, k->blob);
	rsa(k); /* a signature to verify */
}

int main(int argc, char **argv) {
	if (argc != 2 && (argc != 3 || (seconds = atof(argv[2])) <= 0)) {
		fprintf(stderr, "usage: floor MODULE [SECONDS]\n");
		return 2;
	}
	void *module = dlopen(argv[1], RTLD_NOW);
	ck_get_function_list list = module ? (ck_get_function_list)dlsym(module, "C_GetFunctionList") : 0;
	if (!list) {
		fprintf(stderr, "floor: %s\n", dlerror());
		return 1;
	}
	MUST(list(&f));
	struct { void *mutex[4]; ck_ulong flags; void *reserved; } args = { { 0 }, 2, 0 }; /* OS locking */
	MUST(CALL(ck_initialize, Initialize)(&args));
	server k;
	setUp(&k);
	if (argc == 2) return turns(&k);
	for (int threads = 1; threads <= 4; threads *= 2) measure("echo", threads, echo, &k);
	return 0;
}
