package failurelog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// maxRecord limits a line of the log, in bytes: a name of 256 bytes is at most six
// times as long when escaped.
const maxRecord = 4 << 10

// Read calls visit for every record of the log at path, oldest first, including those
// in rotated files. It may be used while the log is written. Invalid lines are skipped
// and counted. If there is no log, the error is fs.ErrNotExist.
func Read(path string, visit func(Record)) (skipped int, err error) {
	files, err := openAll(path)
	for _, f := range files {
		n, readErr := readRecords(f, visit)
		skipped += n
		err = errors.Join(err, readErr, f.Close())
	}
	if err != nil {
		err = fmt.Errorf("failurelog: %w", err)
	}
	return skipped, err
}

// openAll opens the current file first, in case it is rotated in between, and leaves it
// out if it is found again under its new name.
func openAll(path string) (files []*plainfile.File, err error) {
	current, missing := plainfile.Open(path)
	if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		return nil, missing
	}
	old, err := rotated(path)
	for _, name := range old {
		f, openErr := plainfile.Open(name)
		if openErr == nil {
			files = append(files, f)
		} else if !errors.Is(openErr, fs.ErrNotExist) { // a file removed in the meantime was too old
			err = errors.Join(err, openErr)
		}
	}
	switch {
	case missing != nil && len(files) == 0:
		return nil, missing
	case missing != nil:
		return files, err
	case slices.ContainsFunc(files, func(f *plainfile.File) bool { return sameFile(f, current) }):
		return files, errors.Join(err, current.Close())
	}
	return append(files, current), err
}

func sameFile(a, b *plainfile.File) bool {
	first, errA := a.Stat()
	second, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(first, second)
}

func readRecords(r io.Reader, visit func(Record)) (skipped int, err error) {
	lines := bufio.NewReaderSize(r, maxRecord)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if record, ok := parseRecord(line); ok && !long {
			visit(record)
		} else if len(line) > 0 {
			skipped++
		}
		if err == io.EOF {
			return skipped, nil
		}
		if err != nil {
			return skipped, err
		}
	}
}

func parseRecord(line []byte) (r Record, ok bool) {
	err := json.Unmarshal(line, &r)
	return r, err == nil && !r.Received.IsZero() && !r.Proven && r.Failure.check() == nil
}

func firstRecord(r io.ReaderAt) (Record, bool) {
	line, _ := bufio.NewReaderSize(io.NewSectionReader(r, 0, maxRecord), maxRecord).ReadSlice('\n')
	return parseRecord(line)
}
