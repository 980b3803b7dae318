package auditlog

import (
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says where a log is and how it is written.
type Config struct {
	Path string
	// Signer signs the checkpoints: an RSA or EC key. Nil makes none, and the next one that
	// opens the log signs what is there.
	Signer   crypto.Signer
	Size     int64         // bytes after which another file begins; default 64 MiB
	Records  int           // records after which a checkpoint is made, at most; default 4096
	Interval time.Duration // after which a record is covered by a checkpoint; default 10 seconds
	Log      *slog.Logger  // told when writing fails, and when it works again; nil means none
}

const (
	// writeBehind is how long a record may stay in memory, and writeAt after how many bytes
	// it does not.
	writeBehind = 100 * time.Millisecond
	writeAt     = 64 << 10
	// maxPending bounds the bytes in memory of a log that cannot be written.
	maxPending = 4 << 20
	// again is when writing is tried again that failed.
	again = time.Second
)

// ErrInUse says that another process writes the log.
var ErrInUse = errors.New("another process writes it")

// A Log is written by one process at a time. It is safe for use by many goroutines.
type Log struct {
	c       Config
	keyID   string
	name    string
	full    chan struct{}
	reopens chan reopening
	closing chan struct{}
	closed  chan error

	mu       sync.Mutex
	file     *os.File
	size     int64  // bytes of the file, with those that are pending
	pending  []byte // not written yet
	last     Position
	unsigned int    // records that no checkpoint covers
	lost     uint64 // records for which there was no memory
	failed   error  // why the log cannot be written or signed, or nil
	ended    bool
	write    *time.Timer // when what is pending is written
	sign     *time.Timer // when a checkpoint is due
}

// A reopening asks for a file that was moved away to be made again, with a new signer.
type reopening struct {
	signer crypto.Signer
	done   chan error
}

// Open begins a log, or goes on with one. Its file is made with the rights 0600. A log that
// another process writes is [ErrInUse]. Where the file ends with something that is no
// record, as after a crash, it is kept under another name, and another file begins.
func Open(c Config) (*Log, error) {
	if c.Size == 0 {
		c.Size = 64 << 20
	}
	if c.Records == 0 {
		c.Records = 4096
	}
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		c: c, full: make(chan struct{}, 1), reopens: make(chan reopening), closing: make(chan struct{}), closed: make(chan error, 1),
		write: stoppedTimer(), sign: stoppedTimer(),
	}
	if err := l.use(c.Signer); err != nil {
		return nil, err
	}
	if err := l.resume(); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// use signs with that key from now on.
func (l *Log) use(signer crypto.Signer) (err error) {
	if l.c.Signer = signer; signer != nil {
		l.keyID, err = keystore.KeyID(signer.Public())
	}
	return err
}

// Last is the newest record, which may be in memory still.
func (l *Log) Last() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Unsigned is how many records no checkpoint covers.
func (l *Log) Unsigned() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsigned
}

// Err returns why the log cannot be written or signed now, or nil. Records are kept in
// memory meanwhile, as far as they fit; how many did not is told in the log.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Record adds a record. It does not wait for a disk that works, nor for the signing key.
func (l *Log) Record(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return
	case l.lost > 0 || len(l.pending) > maxPending:
		l.lost++
		return
	}
	l.add(line{Record: r.bounded()})
	if l.unsigned++; l.unsigned == 1 {
		l.sign.Reset(l.c.Interval)
	}
	if len(l.pending) > writeAt && l.failed == nil {
		l.noteFailure(l.flush())
	}
	if l.unsigned >= l.c.Records && l.failed == nil || l.size > l.c.Size {
		l.wake()
	}
}

// wake has a checkpoint made, and another file begun if this one is full.
func (l *Log) wake() {
	select {
	case l.full <- struct{}{}:
	default: // it is about to be made
	}
}

// add appends a line to what is pending.
func (l *Log) add(n line) {
	n.N, n.Time = l.last.N+1, time.Now().UTC()
	if len(l.pending) == 0 {
		l.write.Reset(writeBehind)
	}
	before := len(l.pending)
	text, sum := n.write(l.pending, l.last.Chain)
	l.pending, l.size = text, l.size+int64(len(text)-before)
	l.last = Position{n.N, sum}
}

// flush writes what is pending. Of what fails, the rest stays.
func (l *Log) flush() error {
	for len(l.pending) > 0 {
		n, err := l.file.Write(l.pending)
		l.pending = l.pending[:copy(l.pending, l.pending[n:])]
		if err != nil {
			return err
		}
	}
	if lost := l.lost; lost > 0 {
		l.lost = 0
		l.add(line{Record: Record{Event: eventLost, Count: lost}})
		l.unsigned++
	}
	return nil
}

// noteFailure tells once that writing fails, and has it tried again.
func (l *Log) noteFailure(err error) {
	if err == nil {
		return
	}
	if l.failed == nil {
		l.c.Log.Error("the audit log cannot be written: free disk space, or fix the cause of the error", "file", l.c.Path, "error", err)
	}
	l.failed = err
	l.write.Reset(again)
}

// Reopen begins another file if that of the log was moved away, and signs with another key
// from now on.
func (l *Log) Reopen(signer crypto.Signer) error {
	r := reopening{signer, make(chan error, 1)}
	select {
	case l.reopens <- r:
		return <-r.done
	case <-l.closing:
		return os.ErrClosed
	}
}

// Close makes a last checkpoint and ends the log. Records after it are ignored.
func (l *Log) Close() error {
	close(l.closing)
	return <-l.closed
}

// run does what takes time.
func (l *Log) run() {
	for {
		select {
		case <-l.write.C:
			l.writeOut()
		case <-l.sign.C:
			l.checkpoint()
		case <-l.full:
			l.checkpoint()
			l.rotateIfFull()
		case r := <-l.reopens:
			r.done <- l.reopen(r.signer)
		case <-l.closing:
			l.closed <- l.end()
			return
		}
	}
}

// writeOut writes what is pending. After a failure, only a checkpoint shows that all works
// again.
func (l *Log) writeOut() {
	if l.Err() != nil {
		l.checkpoint()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteFailure(l.flush())
}

func (l *Log) end() error {
	l.checkpoint()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.failed != nil {
		return errors.Join(fmt.Errorf("audit log: %d records are not signed: %w", l.unsigned, l.failed), l.file.Close())
	}
	return l.file.Close()
}
