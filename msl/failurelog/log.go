package failurelog

import (
	"bytes"
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
)

// A Record is a line of the log: one failure, and who says that it happened.
type Record struct {
	Received time.Time `json:"received"` // by our clock; the other times are the sender's
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

// A Rotation bounds a log.
type Rotation struct {
	Size int64         // bytes of one file; zero means 8 MiB
	Age  time.Duration // of the first record of a file; zero means 7 days
	Keep int           // files besides the one that is written; zero means 8
}

// A Log keeps records in a file of JSON lines, in ASCII. When the file has its size or
// age it gets the time as a suffix, and the oldest of such files goes. One process at
// a time may write it.
//
// A record is with the operating system when its sender gets the acknowledgement, and
// so survives the end of the process. It is on the disk (fsync) when the file is
// rotated or closed and not before: anybody can send reports, and must not be able to
// keep the disk busy. Who loses power may lose the last seconds.
type Log struct {
	path     string
	rotation Rotation

	mu    sync.Mutex
	file  *os.File
	size  int64
	began time.Time // the first record, or zero
	torn  bool      // the last line has no end
	taken map[share]int64
}

// A share is who has written into the file: an entity at a source, with no entity all
// of a source, and with neither all of it.
type share struct{ source, entity string }

// Shares of one file. All sources together have half of it, since none of them is
// proven: so they never fill it, which would push the oldest file out. The last
// quarter of that half comes little by little while the file gets old, and so who
// floods it leaves room for those that come later.
const (
	commonShare = 2
	sourceShare = 4
	entityShare = 16
)

// errShare says that a sender has used up its share of the file.
var errShare = errors.New("failurelog: the share of the sender in this file of the log is used up")

// OpenLog opens the log at path, or makes it.
func OpenLog(path string, r Rotation) (*Log, error) {
	if r.Size == 0 {
		r.Size = 8 << 20
	}
	r.Age, r.Keep = orDefault(r.Age, 7*24*time.Hour), orNumber(r.Keep, 8)
	l := &Log{path: path, rotation: r, taken: map[share]int64{}}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("failurelog: %w", err)
	}
	return l, nil
}

// open goes on with the file that is there.
func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
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

// write adds the records of one report, all or none.
func (l *Log) write(records []Record) error { return l.writeFrom("", records) }

// writeFrom is write for the report of a source, which has its share of the file and
// no more, or errShare. No source has no bound.
func (l *Log) writeFrom(source string, records []Record) error {
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

// exceeds reports whether that much more is too much for a share, which always has
// room for one report.
func (l *Log) exceeds(s share, size, parts int64) bool {
	return l.taken[s] > 0 && l.taken[s]+size > l.rotation.Size/parts
}

// exceedsAll reports whether that much more is too much for what all sources have
// together. What was there before we opened the file counts.
func (l *Log) exceedsAll(size int64, now time.Time) bool {
	age := 0.0
	if !l.began.IsZero() {
		age = min(max(float64(now.Sub(l.began))/float64(l.rotation.Age), 0), 1)
	}
	room := float64(l.rotation.Size) / commonShare * (3 + age) / 4
	return l.size > 0 && float64(l.size+size) > room
}

// turn begins a new file where so much more does not fit, or the file is too old.
func (l *Log) turn(size int64, now time.Time) error {
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
	if l.torn { // what a crash has left must not swallow this line
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

// rotate puts the file aside, and removes the oldest ones.
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
	for n := 0; n < len(old)-l.rotation.Keep; n++ {
		err = errors.Join(err, os.Remove(old[n]))
	}
	return err
}

const suffixForm = "20060102T150405.000000000Z"

var suffix = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z$`)

// nextName is a name that comes after those of all other files, whatever the clock
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

// rotated are the files that were put aside, oldest first.
func rotated(path string) ([]string, error) {
	all, err := os.ReadDir(filepath.Dir(path))
	var names []string
	for _, e := range all {
		if rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)); ok && suffix.MatchString(rest) {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(names)
	return names, err
}

// Close writes what the operating system still holds to the disk.
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

// ascii escapes what is not visible ASCII, in JSON: control characters of Unicode
// steer terminals, too.
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
