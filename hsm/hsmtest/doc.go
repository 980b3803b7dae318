// Package hsmtest makes a PKCS #11 module that forwards to a real one, SoftHSM
// or any other, and misbehaves on command: for tests of what a program does when
// its HSM fails. The module is one shared object for any program that loads
// PKCS #11 modules, in any language; a text file beside it says what goes wrong.
//
// # Which function do I want
//
//   - In a Go test: [New], then [Module.Inject] and [Module.Clear]. Have the
//     program load [Module.Path] in place of the real module.
//   - In another program: [Build].
//   - To know what went through, and whether a fault was hit:
//     [Module.Counters].
//   - To know what can go wrong: the fields of [Fault].
//
// # For programs in other languages
//
// Compile the sources in the directory module, and write the control file:
//
//	cc -std=gnu11 -shared -fPIC -fvisibility=hidden -o hsmtest.so module/*.c -ldl -lpthread
//	cat > hsmtest.so.control <<END
//	target /usr/lib/softhsm/libsofthsm2.so
//	C_Sign code=CKR_DEVICE_ERROR skip=2 times=1
//	END
//
// Then name hsmtest.so where the module goes:
//
//	C        dlopen("/path/hsmtest.so", RTLD_NOW), and so p11-kit, OpenSC, OpenSSL
//	Java     library = /path/hsmtest.so in the configuration of SunPKCS11
//	Python   pkcs11.lib("/path/hsmtest.so"), PyKCS11Lib().load("/path/hsmtest.so")
//
// Several copies of the shared object can be used in one process, each with a
// control file of its own. Copies with the same target share its C_Initialize.
//
// # The control file
//
// It lies beside the shared object, whose symbolic links are followed, and has
// the same name with .control at the end; the environment variable
// HSMTEST_CONTROL names another for all copies. Each call checks whether it has
// changed. Replace it in one step: write another file and rename it. A file with
// the same modification time (in nanoseconds), size and inode counts as unchanged.
// After a change, skipped calls and hits are counted from zero again, over all
// processes together.
//
// A line is empty, a comment that begins with #, the target, or a rule:
//
//	target /absolute/path/of/the/real/module.so
//	FUNCTION WORD...
//
// FUNCTION is the C_ name of one of the 68 functions of v2.40, or * for all of
// them. These words say which calls are hit (none of them: all calls):
//
//	attribute=CKA_ID,0x102     a template of the call names one of these
//	mechanism=CKM_AES_CBC      the call names it, or goes on with an operation of it
//	skip=2                     two such calls pass first
//	times=3                    three are hit
//	for=500ms                  calls up to that long after the first hit
//	until-finalize             in each process, until the C_Finalize after its first hit
//
// and what happens to them, one or more:
//
//	code=CKR_DEVICE_ERROR      the answer, also CKR_OK; the real call is not made
//	after                      it is made first: the effect stays, the answer is lost
//	delay=20ms                 the call takes that much longer (us, ms or s)
//	hang                       it takes until the control file changes
//	crash=segv, crash=abort    the process ends
//	leak=1048576               the process occupies so many bytes more
//	vanish-sessions            all sessions are closed behind the program's back
//	vanish-objects             session objects are destroyed, other handles invalid
//	removed [token=LABEL]      that token, or every token, is absent
//	replace=OTHER token=LABEL [same-label] [same-serial]
//	                           the two tokens have changed places
//	length=1<<47               the length or count that the call returns
//	garble                     the first byte of what the call returns is inverted
//	tell=16                    the number or truth value that attribute= is read as
//	max-sessions=4             more sessions are CKR_SESSION_COUNT
//	told-sessions=~0           the maximum that CK_TOKEN_INFO states
//	set-flags=0x10000 clear-flags=0x20000
//	                           the flags of a slot, token or mechanism are changed
//	listed=10000               C_GetMechanismList, or C_GetSlotList if that is named, gives
//	                           so many, some again and again
//	key-size=0                 the least and greatest that C_GetMechanismInfo states
//	write-protected            the tokens are read-only: no session can write
//	max-part=16384             more bytes in a call are CKR_DATA_LEN_RANGE
//	max-found=1                C_FindObjects gives that many objects at a time
//	unknown                    the module does not know attribute= and mechanism=
//	token-objects-only         objects of the session are CKR_TEMPLATE_INCONSISTENT
//	officer-trusts             the security officer of a SoftHSM2 sets CKA_TRUSTED of its keys
//	fresh-list                 each C_GetFunctionList gives a new, independent list
//	reveal                     attribute=, or CKA_VALUE, is readable although sensitive
//	ignore [pretend]           attribute= in templates of new objects is ignored
//	as=CKM_AES_KEY_WRAP [pad=8] [draws-iv]
//	                           the mechanism= is imitated by that one, for wrapping
//
// [Fault] has a field for each, with more detail. Numbers are decimal, 0x
// hexadecimal, N<<M, or ~N for the complement; the usual names of codes,
// attributes and mechanisms stand for their numbers. Quote a label that
// has spaces: token="my token". Rules apply in order. All rules that hit a call
// take effect, up to the first one that keeps the call from the real module.
//
// A program calls twice for output of variable length, first to learn the length.
// To return a wrong length together with the value, skip the first call.
//
// An invalid line is reported on standard error with its file and number. Until it
// is corrected, every call except C_GetFunctionList answers CKR_FUNCTION_FAILED. A
// missing file has the same effect.
//
// # The counters file
//
// It lies beside the control file and has its name with .counters at the end.
// It may be read at any time. It is an array of 64-bit words in the byte order of
// the machine:
//
//	0          the ASCII letters "hsmtest1"
//	1, 2, 3    time, inode and size of the control file that the hits belong to
//	4          token objects made through the module, minus destroyed (signed)
//	8+f        calls of the function f, counted from 0 in the order of v2.40
//	80+3r      of rule r, from 0: calls that match it; then 81+3r: hits
//	848+3p     of process p, from 0 to 63: its ID; then its open sessions, and its
//	           session objects; they count only while the process exists
//
// In Python, for example:
// array.array('Q', open("hsmtest.so.control.counters", "rb").read()).
//
// # What it does not do
//
//   - It has no functions of v3.0 (C_GetInterface), and exports only
//     C_GetFunctionList: programs that look up other functions by name do not
//     find them.
//   - It makes no slot events: C_WaitForSlotEvent is passed on.
//   - Handles are those of the real module. It checks no arguments and corrects
//     no misuse: a program that crashes the real module crashes here too.
//   - Faults by mechanism do not apply to functions that combine two operations,
//     such as C_DigestEncryptUpdate.
//   - Objects are counted by the calls that create and destroy them. If the module
//     loses an object in another way, the count does not show it.
//   - Processes in different PID namespaces take each other for dead, and more
//     than 64 processes share entries. The numbers of sessions and session objects
//     are wrong then.
//   - It does not run on Windows.
//
// PINs and keys of the program under test pass through the module: use none that
// matter.
package hsmtest
