//go:build poison

package wire

// The build tag poison makes memory be overwritten as soon as it must no longer be used,
// so that tests find later uses.

const poison = 0xdb

// poisoned overwrites all of b.
func poisoned(b []byte) []byte {
	b = b[:cap(b)]
	for i := range b {
		b[i] = poison
	}
	return b
}

// wipe overwrites b, not only with zeros.
func wipe(b []byte) { poisoned(b) }

// poisonNodes makes the nodes refer beyond any input.
func poisonNodes(nodes []node) {
	for i := range nodes {
		nodes[i] = node{kind: poison, nameAt: poison << 24, nameEnd: poison << 24, at: poison << 24, end: poison << 24,
			children: poison << 24, nextNode: poison << 24}
	}
}
