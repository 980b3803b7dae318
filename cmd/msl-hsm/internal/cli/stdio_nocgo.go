//go:build !cgo

package cli

// startedWithout reports whether a standard stream was closed when the process started,
// which only C code runs early enough to see.
func startedWithout(int) bool { return false }
