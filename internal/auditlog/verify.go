package auditlog

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// A Finding is something that is wrong with a log.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1, or 0
	Text string `json:"text"`
}

// A Summary is what is known about one log.
type Summary struct {
	Log         string    `json:"log"` // its name
	Files       []string  `json:"files"`
	First       uint64    `json:"first"`           // number of the first record
	Last        string    `json:"last"`            // position of the last record, for later comparison
	Records     int       `json:"records"`         // without those that the log wrote for itself
	Own         int       `json:"own"`             // those: they begin files, and hold signatures
	Checkpoints int       `json:"checkpoints"`     // whose signature is right
	Signed      uint64    `json:"signed"`          // number of the last record that one of them covers
	SignedAt    time.Time `json:"signed_at"`       // time of that record
	Unsigned    int       `json:"unsigned"`        // records after it
	Stopped     bool      `json:"stopped"`         // it ends with the end of the process that wrote it
	Notes       []string  `json:"notes,omitempty"` // what cannot be known, and what is not as usual
	last        Position
}

// A Report is what [Verify] found.
type Report struct {
	Logs     []Summary `json:"logs"`
	Findings []Finding `json:"findings"` // the first 100; none if nothing is wrong
}

// maxFindings bounds the findings reported.
const maxFindings = 100

// Verify verifies logs, whose files may be given in any order. keys verify checkpoints,
// by their [keystore.KeyID]. seen are records seen earlier: each must still exist. The
// error is that of a file that cannot be read.
func Verify(files []string, keys map[string]crypto.PublicKey, seen []Position) (Report, error) {
	v := verifier{open: openToRead, keys: keys, seen: slices.Clone(seen), report: Report{Findings: []Finding{}}}
	return v.verify(files)
}

func openToRead(name string) (io.ReadCloser, error) { return plainfile.Open(name) }

func (v *verifier) verify(files []string) (Report, error) {
	sorted, err := v.sort(files)
	if err != nil {
		return v.report, err
	}
	for _, f := range sorted {
		if err := v.file(f); err != nil {
			return v.report, err
		}
	}
	v.endLog()
	v.checkSeen()
	return v.report, nil
}

// A verifier processes the lines of logs.
type verifier struct {
	open   func(name string) (io.ReadCloser, error)
	keys   map[string]crypto.PublicKey
	seen   []Position // not found yet
	report Report

	name     string // of the file
	at       int    // line in it
	now      *Summary
	chain    [sha256.Size]byte // of the previous line
	skipped  bool              // the previous line was not a record
	torn     int64             // bytes at the end of the previous file that are not a line
	tornAt   Finding
	mark     readLine
	marked   int // records up to the mark
	signed   int // signed records
	stopped  bool
	lastTime time.Time
}

// A named is a file and what its first line says.
type named struct {
	name, log string
	n         uint64
}

// sort orders files as they were written, log by log.
func (v *verifier) sort(files []string) ([]named, error) {
	var all []named
	order := map[string]int{}
	for _, name := range files {
		first, err := v.firstLine(name)
		if err != nil {
			return nil, err
		}
		if _, ok := order[first.Log]; !ok {
			order[first.Log] = len(order)
		}
		all = append(all, named{name, first.Log, first.N})
	}
	slices.SortStableFunc(all, func(a, b named) int {
		if a.log != b.log {
			return order[a.log] - order[b.log]
		}
		return int(min(a.n, 1<<62)) - int(min(b.n, 1<<62))
	})
	return all, nil
}

// firstLine reads the first line of a file, if it is a record.
func (v *verifier) firstLine(name string) (l readLine, err error) {
	f, err := v.open(name)
	if err != nil {
		return l, err
	}
	defer f.Close()
	text, _, _, err := newLineReader(f).next()
	if err != nil && !errors.Is(err, io.EOF) {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	if l, err = parseLine(text); err != nil || l.Event != eventFile {
		return readLine{}, nil
	}
	return l, nil
}

func (v *verifier) find(format string, args ...any) {
	v.add(Finding{v.name, v.at, fmt.Sprintf(format, args...)})
}

func (v *verifier) add(f Finding) {
	if len(v.report.Findings) < maxFindings {
		v.report.Findings = append(v.report.Findings, f)
	}
}

func (v *verifier) note(format string, args ...any) {
	if len(v.now.Notes) < maxFindings {
		v.now.Notes = append(v.now.Notes, fmt.Sprintf(format, args...))
	}
}

// file verifies the lines of a file.
func (v *verifier) file(f named) error {
	file, err := v.open(f.name)
	if err != nil {
		return err
	}
	defer file.Close()
	v.name, v.at = f.name, 0
	v.beginFile(f)
	return v.lines(file)
}

// beginFile starts another log, if the file belongs to another one.
func (v *verifier) beginFile(f named) {
	if v.now == nil || v.now.Log != f.log {
		v.endLog()
		v.report.Logs = append(v.report.Logs, Summary{Log: f.log})
		v.now = &v.report.Logs[len(v.report.Logs)-1]
	}
	v.now.Files = append(v.now.Files, f.name)
}

func (v *verifier) lines(file io.Reader) error {
	lines := newLineReader(file)
	for {
		text, size, whole, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		v.at++
		l, errLine := parseLine(text)
		if whole && errLine == nil {
			v.line(l)
			continue
		}
		v.noLine(size, whole)
	}
	if v.at == 0 {
		v.find("the file is empty: a crash left it so before its first record, or somebody emptied it")
	}
	return nil
}

// noLine skips something that is not a record. If it is at the end of a file, the next
// file may say that a crash left it there.
func (v *verifier) noLine(size int64, whole bool) {
	v.endTorn()
	if v.torn, v.skipped = size, true; whole {
		v.tornAt = Finding{v.name, v.at, "this is not a record: the line was changed or damaged"}
		return
	}
	v.tornAt = Finding{v.name, v.at, "the line is incomplete: it was cut off, by a crash or by somebody"}
}

// endTorn reports something that is not a record and that nothing explains.
func (v *verifier) endTorn() {
	if v.torn > 0 {
		v.add(v.tornAt)
	}
	v.torn = 0
}

// line verifies a record.
func (v *verifier) line(l readLine) {
	if (l.Event == eventFile) != (v.at == 1) {
		v.misplacedHeader(l)
	}
	before := v.chain
	if l.Event == eventFile && v.at == 1 {
		before = v.header(l)
	} else {
		v.endTorn()
	}
	v.follows(l, before)
	v.chain, v.now.last, v.skipped = l.chain, l.position(), false
	if v.now.First == 0 {
		v.now.First = l.N
	}
	v.seen = slices.DeleteFunc(v.seen, func(p Position) bool { return p == l.position() })
	if back := v.lastTime.Sub(l.Time); back >= time.Second {
		v.note("record %d is %v older than the record before it: the clock was set back", l.N, back.Round(time.Second))
	}
	v.meaning(l)
	v.lastTime = l.Time
}

func (v *verifier) misplacedHeader(l readLine) {
	if v.at == 1 {
		v.find("the file does not begin with the record that each file has at first: lines before record %d are missing", l.N)
		return
	}
	v.find("record %d begins a file and stands in the middle of one: lines were inserted", l.N)
}

// header verifies that a file follows the previous one, and returns the chain value
// before it.
func (v *verifier) header(l readLine) [sha256.Size]byte {
	before, err := parseChain(l.Previous)
	if err != nil {
		v.find("the first record names no chain value before it")
	}
	if v.torn > 0 && v.torn == l.Torn {
		v.note("%s ends with %d bytes of an incomplete record: the process ended while it was writing", v.tornAt.File, v.torn)
		v.torn, v.skipped = 0, false
	}
	v.endTorn()
	switch {
	case v.now.First == 0 && l.N == 1:
	case v.now.First == 0:
		v.note("it begins at record %d: the files with the earlier records were not given", l.N)
		v.now.last.N = l.N - 1
	case before != v.chain && l.N == v.now.last.N+1:
		v.find("the file does not follow the one before: record %d was changed", l.N)
	}
	return before
}

// follows verifies the number and chain value of a record.
func (v *verifier) follows(l readLine, before [sha256.Size]byte) {
	wants, fits := v.now.last.N+1, follow(before, l.body) == l.chain
	switch {
	case v.skipped && (l.N == wants || l.N == wants+1): // already reported
	case v.now.First == 0 && v.at == 1 && l.Event != eventFile: // already reported
	case l.N > wants:
		v.find("%s missing", records(wants, l.N-1))
	case l.N < wants:
		v.find("record %d stands where record %d belongs: lines were moved, repeated or inserted", l.N, wants)
	case !fits:
		v.find("record %d does not match its chain value: it was changed, or the one before it was replaced", l.N)
	}
}

// records names a range, with its verb.
func records(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d is", from)
	}
	return fmt.Sprintf("records %d to %d are", from, to)
}

// meaning interprets what a record says about the log.
func (v *verifier) meaning(l readLine) {
	switch l.Event {
	case eventMark:
		v.mark, v.marked = l, v.now.Records
	case eventCheckpoint:
		v.checkpoint(l)
	case eventLost:
		v.note("records lost before record %d because the log could not be written: %d", l.N, l.Count)
	case EventStart:
		v.started(l)
	}
	if l.own() {
		v.now.Own++
		return
	}
	v.now.Records++
	v.stopped = l.Event == EventStop
}

// started says how the process ended that wrote before this one.
func (v *verifier) started(l readLine) {
	switch loose := v.now.Records - v.signed; {
	case loose > 0:
		v.note("unsigned records before record %d, where another process began: %d: the previous one crashed, and records that it had not written yet are missing, or someone else wrote them", l.N, loose)
	case v.now.Records > 0 && !v.stopped:
		v.note("the process that wrote before record %d did not end properly: records that it had not written yet are missing, if there were any", l.N)
	}
}

// checkpoint verifies a signature.
func (v *verifier) checkpoint(l readLine) {
	key, known := v.keys[l.Key]
	switch {
	case v.mark.N == 0 || v.mark.N != l.At:
		if v.now.First > l.At { // the mark is in a file that was not given
			return
		}
		v.find("record %d signs record %d, and the newest mark is record %d: lines were moved or are missing", l.N, l.At, v.mark.N)
	case !known:
		v.find("record %d is signed by the key %.40q, whose public key was not given", l.N, l.Key)
	case verifySignature(key, digest(v.now.Log, v.mark.position(), l.Key), l.Signature) != nil:
		v.find("record %d has a wrong signature: %s not as they were written", l.N, records(v.now.Signed+1, l.At))
	default:
		v.now.Checkpoints++
		v.now.Signed, v.now.SignedAt, v.signed = v.mark.N, v.mark.Time, v.marked
	}
}

// endLog finishes the summary of a log.
func (v *verifier) endLog() {
	v.endTorn()
	if v.now == nil {
		return
	}
	defer v.forget()
	s := v.now
	if s.First == 0 { // its file has no record, as was told
		v.report.Logs = v.report.Logs[:len(v.report.Logs)-1]
		return
	}
	s.Last, s.Unsigned, s.Stopped = s.last.String(), s.Records-v.signed, v.stopped && v.signed == s.Records
	v.at = 0
	switch {
	case s.Checkpoints == 0:
		v.find("nothing in this log is signed, so nothing is proven")
	case s.Unsigned > 0:
		v.note("unsigned records after record %d: %d: they are only chained, and anyone who can write the file can change them", s.Signed, s.Unsigned)
	}
	if !s.Stopped {
		v.note("the files do not show whether records after record %d were cut off: the process is still running, or did not end properly", s.last.N)
	}
}

// forget makes the verifier know nothing of the log that ends.
func (v *verifier) forget() {
	v.now, v.mark, v.marked, v.signed, v.stopped, v.chain, v.skipped, v.lastTime = nil, readLine{}, 0, 0, false, [sha256.Size]byte{}, false, time.Time{}
}

// checkSeen checks that the records seen earlier still exist.
func (v *verifier) checkSeen() {
	for _, p := range v.seen {
		v.add(Finding{Text: fmt.Sprintf("record %d, which was seen earlier, is not there any more: the end was cut off, or the log was replaced", p.N)})
	}
}
