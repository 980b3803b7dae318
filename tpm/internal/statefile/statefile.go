// Package statefile defines the format of the files in which the packages under tpm keep
// data that is not secret: a line
//
//	MAGIC <SHA-256 of what follows, in hex>
//
// followed by the payload. The checksum detects damage, not tampering: anyone who can
// write the file can compute it.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
)

var (
	// ErrOther: it is a device, a pipe, a directory, or longer than any state file.
	ErrOther = errors.New("is not a state file")
	// ErrWritable: users other than the owner may change it.
	ErrWritable = errors.New("can be written by others: chmod 600 it")
)

// Read returns the content of a file of at most most bytes, and what was known about it
// before.
func Read(path string, most int64) (data []byte, info fs.FileInfo, err error) {
	info, err = os.Stat(path)
	switch {
	case err != nil:
	case !info.Mode().IsRegular() || info.Size() > most:
		err = ErrOther
	case info.Mode().Perm()&0o022 != 0:
		err = ErrWritable
	default:
		data, err = os.ReadFile(path)
	}
	return data, info, err
}

// Join prepends the first line to a payload, and also returns its checksum.
func Join(magic string, payload []byte) (data []byte, sum string) {
	digest := sha256.Sum256(payload)
	sum = hex.EncodeToString(digest[:])
	return append([]byte(magic+" "+sum+"\n"), payload...), sum
}

// Split returns the payload of a file that Join made with the same magic, and its
// checksum.
func Split(magic string, data []byte) (payload []byte, sum string, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic+" "))
	line, payload, ok2 := bytes.Cut(rest, []byte("\n"))
	if !ok || !ok2 {
		return nil, "", errors.New("not a state file of this version")
	}
	if _, sum = Join(magic, payload); string(line) != sum {
		return nil, "", errors.New("the state file is damaged")
	}
	return payload, sum, nil
}
