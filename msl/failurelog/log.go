package failurelog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// A Record is a line of the log: one failure, and the entity that claims to report it.
type Record struct {
	Received time.Time `json:"received"` // by the server's clock; the other times are the sender's
	Entity   string    `json:"entity"`
	Proven   bool      `json:"entity_proven"` // always false: anybody can claim to be that entity
	Version  string    `json:"version,omitempty"`
	Lost     uint32    `json:"lost,omitempty"`    // on the first line of a report
	Skipped  uint32    `json:"skipped,omitempty"` // on the first line of a report
	Failure
}

func newRecords(now time.Time, entity string, r *Report) []Record {
	records := make([]Record, len(r.Failures))
	for n, f := range r.Failures {
		records[n] = Record{Received: now.UTC().Truncate(time.Millisecond), Entity: entity, Version: r.Version, Failure: f}
	}
	records[0].Lost, records[0].Skipped = r.Lost, r.Skipped
	return records
}

// A Rotation limits the size of a log.
type Rotation struct {
	Size int64         // bytes of one file; zero means 8 MiB
	Age  time.Duration // of the first record of a file; zero means 7 days
	Keep int           // files besides the current one; zero means 8
}

// A Log keeps records in a file of JSON lines, in ASCII. When the file reaches its
// maximum size or age, it is renamed with the time as a suffix, and the oldest such file
// is removed. If someone moves or empties the file, the next report starts a new one.
// Only one process at a time may write the log.
//
// A record has been passed to the operating system when its sender gets the
// acknowledgment, so it survives the end of the process. It is synced to the disk only
// when the file is rotated or closed: anyone can send reports, and must not be able to
// keep the disk busy. A power failure may lose the last few seconds.
type Log struct {
	path     string
	rotation Rotation

	mu    sync.Mutex
	file  *os.File
	size  int64
	began time.Time // time of the first record, or zero
	torn  bool      // the last line is incomplete
	taken map[share]int64
}

// A share identifies who has written to the file: an entity at a source, all entities of
// a source if entity is empty, or everyone if both are empty.
type share struct{ source, entity string }

// Shares of one file. All sources together have half of it, since none is authenticated;
// they therefore never fill it, which would push out the oldest file. The last quarter of
// that half is released gradually as the file ages, so that a flood leaves room for later
// reports.
const (
	commonShare = 2
	sourceShare = 4
	entityShare = 16
)

// errShare says that a sender has used up its share of the file.
var errShare = errors.New("failurelog: the sender's share of this log file is used up")

// OpenLog opens the log at path, or creates it.
func OpenLog(path string, r Rotation) (*Log, error) {
	if r.Size == 0 {
		r.Size = 8 << 20
	}
	r.Age, r.Keep = cmp.Or(r.Age, 7*24*time.Hour), cmp.Or(r.Keep, 8)
	l := &Log{path: path, rotation: r, taken: map[share]int64{}}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("failurelog: %w", err)
	}
	return l, nil
}

// open continues the existing file.
func (l *Log) open() error {
	f, err := atomicfile.Open(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size, l.began, l.torn = f, info.Size(), time.Time{}, false
	if l.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, l.size-1); err != nil {
		return errors.Join(err, f.Close())
	}
	l.torn = last[0] != '\n'
	l.began = info.ModTime()
	if r, ok := firstRecord(f); ok {
		l.began = r.Received
	}
	return nil
}

// write adds the records of one report of a source, all or none. If the source has used up
// its share of the file, it returns errShare. An empty source has no limit.
func (l *Log) write(source string, records []Record) error {
	var text bytes.Buffer
	for n := range records {
		line, err := json.Marshal(&records[n])
		if err != nil {
			return fmt.Errorf("failurelog: %w", err)
		}
		text.Write(ascii(line))
		text.WriteByte('\n')
	}
	size, now := int64(text.Len()), records[0].Received
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.turn(size, now); err != nil {
		return fmt.Errorf("failurelog: %w", err)
	}
	whole, part := share{source, ""}, share{source, records[0].Entity}
	if source != "" && (l.exceedsAll(size, now) || l.exceeds(whole, size, sourceShare) || l.exceeds(part, size, entityShare)) {
		return errShare
	}
	if err := l.append(text.Bytes(), now); err != nil {
		return fmt.Errorf("failurelog: %w", err)
	}
	l.taken[whole] += size
	l.taken[part] += size
	return nil
}

// follow starts a new file if someone moved or emptied the current one: acknowledged
// reports must be where they are looked for.
func (l *Log) follow() error {
	if l.file == nil { // append opens it
		return nil
	}
	own, err := l.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(l.path)
	if err == nil && os.SameFile(own, there) && there.Size() >= l.size {
		return nil
	}
	err = errors.Join(l.file.Sync(), l.file.Close())
	l.file, l.taken = nil, map[share]int64{}
	return errors.Join(err, l.open())
}

// exceeds reports whether a share would become too large by size more bytes. One report
// always fits.
func (l *Log) exceeds(s share, size, parts int64) bool {
	return l.taken[s] > 0 && l.taken[s]+size > l.rotation.Size/parts
}

// exceedsAll reports whether size more bytes are too many for all sources together.
// Reports that were in the file before it was opened count too.
func (l *Log) exceedsAll(size int64, now time.Time) bool {
	age := 0.0
	if !l.began.IsZero() {
		age = min(max(float64(now.Sub(l.began))/float64(l.rotation.Age), 0), 1)
	}
	room := float64(l.rotation.Size) / commonShare * (3 + age) / 4
	return l.size > 0 && float64(l.size+size) > room
}

// turn starts a new file if size more bytes do not fit, or if the file is too old.
func (l *Log) turn(size int64, now time.Time) error {
	if err := l.follow(); err != nil {
		return err
	}
	full := l.size > 0 && l.size+size > l.rotation.Size
	if full || !l.began.IsZero() && now.Sub(l.began) > l.rotation.Age {
		return l.rotate(now)
	}
	return nil
}

func (l *Log) append(text []byte, now time.Time) error {
	if l.file == nil { // it could not be opened after a rotation
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.torn { // the incomplete line left by a crash must not swallow this one
		text = append([]byte{'\n'}, text...)
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	if err != nil {
		l.torn = l.torn || n > 0
		return err
	}
	l.torn = false
	if l.began.IsZero() {
		l.began = now
	}
	return nil
}

// rotate renames the file, and removes the oldest ones.
func (l *Log) rotate(now time.Time) error {
	if l.file != nil {
		err := errors.Join(l.file.Sync(), l.file.Close())
		l.file = nil
		if err != nil {
			return err
		}
	}
	name, err := l.nextName(now)
	if err != nil {
		return err
	}
	if err := os.Rename(l.path, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.size, l.began, l.taken = 0, time.Time{}, map[share]int64{}
	old, err := rotated(l.path)
	for n := 0; n < len(old)-max(l.rotation.Keep, 0); n++ {
		err = errors.Join(err, os.Remove(old[n]))
	}
	return err
}

const suffixForm = "20060102T150405.000000000Z"

var suffix = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z$`)
})

// nextName returns a name that sorts after those of all other files, whatever the clock
// says.
func (l *Log) nextName(now time.Time) (string, error) {
	old, err := rotated(l.path)
	if err != nil {
		return "", err
	}
	if len(old) > 0 {
		newest, err := time.Parse("."+suffixForm, strings.TrimPrefix(filepath.Base(old[len(old)-1]), filepath.Base(l.path)))
		if err == nil && !now.After(newest) {
			now = newest.Add(1)
		}
	}
	return l.path + "." + now.UTC().Format(suffixForm), nil
}

// rotated returns the files that were renamed by rotation, oldest first.
func rotated(path string) ([]string, error) {
	all, err := os.ReadDir(filepath.Dir(path))
	var names []string
	for _, e := range all {
		if rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)); ok && suffix().MatchString(rest) {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(names)
	return names, err
}

// Close syncs the file to the disk and closes it.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// ascii escapes everything except visible ASCII, in JSON: Unicode control characters also
// affect terminals.
func ascii(line []byte) []byte {
	var out []byte
	for _, r := range string(line) {
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
