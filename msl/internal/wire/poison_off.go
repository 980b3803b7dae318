//go:build !poison

package wire

func poisoned(b []byte) []byte { return b }

func poisonNodes([]node) {}
