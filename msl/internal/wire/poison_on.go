//go:build poison

package wire

// The build tag poison has memory overwritten as soon as it must not be used any more,
// so that tests find a use after that.

const poison = 0xdb

// poisoned overwrites all of b.
func poisoned(b []byte) []byte {
	b = b[:cap(b)]
	for i := range b {
		b[i] = poison
	}
	return b
}

// wipe overwrites b, with more than zeros.
func wipe(b []byte) { poisoned(b) }

// poisonNodes makes the nodes refer to what no input has.
func poisonNodes(nodes []node) {
	for i := range nodes {
		nodes[i] = node{kind: poison, nameAt: poison << 24, nameEnd: poison << 24, at: poison << 24, end: poison << 24,
			children: poison << 24, nextNode: poison << 24}
	}
}
