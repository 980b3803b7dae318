//go:build !poison

package wire

func poisoned(b []byte) []byte { return b }

func wipe(b []byte) { clear(b) }

func poisonNodes([]node) {}
