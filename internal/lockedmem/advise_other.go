//go:build unix && !linux

package lockedmem

func protect([]byte) {}
