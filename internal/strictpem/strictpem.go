// Package strictpem reads files of PEM (RFC 7468) of which nothing may be left out: a list of
// revoked or of trusted certificates that is read in part protects in part. encoding/pem
// skips a block that is damaged, cut off, or joined to the one before on one line.
package strictpem

import (
	"bytes"
	"encoding/pem"
	"fmt"
)

// A Block is a block of PEM, and the line of the text, counted from 1, in which it begins.
type Block struct {
	pem.Block
	Line int
}

// Is reports whether a text is meant to be PEM: whether a block begins or ends in it.
func Is(text []byte) bool {
	return bytes.Contains(text, []byte(begin)) || bytes.Contains(text, []byte(end))
}

const begin, end = "-----BEGIN", "-----END"

// Decode returns all blocks of a text, between which there may be other text. What begins or
// ends as a block does and is none is an error, which tells its line.
func Decode(text []byte) (all []Block, err error) {
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

// first returns where the first block of a text begins, or ends without a beginning.
func first(text []byte) int {
	from, to := bytes.Index(text, []byte(begin)), bytes.Index(text, []byte(end))
	if from < 0 || to >= 0 && to < from {
		return to
	}
	return from
}
