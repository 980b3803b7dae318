//go:build !cgo

package cli

// startedWithout reports whether a standard stream was closed when the process was started,
// which only C code is early enough to see.
func startedWithout(int) bool { return false }
