// Package modulecheck tries a PKCS #11 module on a token of its operator: what the checks
// of package hsm see, the conformance suite of key stores, and a second opinion by
// crypto11, an independent program that reads the same standard.
//
// [Run] starts a child process for each part, which calls [Serve]: a module that crashes
// or hangs ends the child, and the report says at which check. All keys are made under
// labels with one prefix, and destroyed at the end.
package modulecheck
