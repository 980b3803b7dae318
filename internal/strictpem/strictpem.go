// Package strictpem reads PEM files (RFC 7468) in which nothing may be skipped: a partly
// read list of revoked or trusted certificates protects only partly. encoding/pem skips a
// block that is damaged, truncated, or joined to the previous one on one line.
package strictpem

import (
	"bytes"
	"encoding/pem"
	"fmt"
)

// A Block is a PEM block, with the line of the text, counted from 1, in which it begins.
type Block struct {
	pem.Block
	Line int
}

// Is reports whether a text is meant to be PEM: whether it contains the beginning or end
// of a block.
func Is(text []byte) bool {
	return bytes.Contains(text, []byte(begin)) || bytes.Contains(text, []byte(end))
}

const begin, end = "-----BEGIN", "-----END"

// Decode returns all blocks of a text; other text may stand between them, and a byte order
// mark, as some editors write it, before them. Anything that begins or ends like a block but
// is not one is an error, which names its line.
func Decode(text []byte) (all []Block, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	for rest := text; Is(rest); {
		block, after := pem.Decode(rest)
		used := rest[:len(rest)-len(after)]
		line := 1 + bytes.Count(text[:len(text)-len(rest)+first(rest)], []byte("\n"))
		if block == nil || bytes.Count(used, []byte(begin)) != 1 || bytes.Count(used, []byte(end)) != 1 {
			return nil, fmt.Errorf("line %d: a damaged block of PEM", line)
		}
		all, rest = append(all, Block{*block, line}), after
	}
	return all, nil
}

// first returns where the first block of a text begins, or where one ends that has no
// beginning.
func first(text []byte) int {
	from, to := bytes.Index(text, []byte(begin)), bytes.Index(text, []byte(end))
	if from < 0 || to >= 0 && to < from {
		return to
	}
	return from
}
