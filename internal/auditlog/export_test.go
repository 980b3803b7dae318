package auditlog

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Rechain computes the chain values of lines anew.
func Rechain(lines [][]byte) []byte {
	var all bytes.Buffer
	var chain [sha256.Size]byte
	for _, text := range lines {
		l, err := parseLine(bytes.TrimSuffix(text, []byte("\n")))
		if err != nil {
			continue
		}
		chain = follow(chain, l.body)
		fmt.Fprintf(&all, "%s%s%s%s\n", l.body, chainField, chainText(chain), chainEnd)
	}
	return all.Bytes()
}

// Fill has the disk of a log be full until it is called again.
func (l *Log) Fill() (empty func()) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	file := l.file
	l.file = full
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.file = file
		full.Close()
	}
}

// VerifyText verifies one file that is in memory.
func VerifyText(text []byte, keys map[string]crypto.PublicKey, seen []Position) (Report, error) {
	open := func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	v := verifier{open: open, keys: keys, seen: seen}
	return v.verify([]string{"text"})
}

// ReadEnd finds where a log continues.
func ReadEnd(text []byte) error {
	_, err := readEnd(bytes.NewReader(text))
	return err
}

// EncodeBothWays returns a line as it is written, and as encoding/json writes it.
func EncodeBothWays(r Record, torn int64, signature []byte) (own, library []byte, err error) {
	l := line{N: 7, Time: time.Now().UTC(), Record: r, ownFields: ownFields{Log: r.Event, Previous: r.Action, Torn: torn, At: r.Count, Signature: signature}}
	library, err = json.Marshal(l)
	return append(l.body(nil), '}'), library, err
}
