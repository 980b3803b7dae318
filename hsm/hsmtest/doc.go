// Package hsmtest makes a PKCS #11 module that forwards to a real one and
// misbehaves on command: codes, delays, hangs, crashes.
//
// [New] and [Build] make the module, [Module.Inject] says what goes wrong with
// which calls, and [Module.Counters] tells what went through it.
package hsmtest
