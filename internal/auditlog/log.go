package auditlog

import (
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says where a log is and how it is written.
type Config struct {
	Path string
	// Signer signs the checkpoints: an RSA or EC key. Nil makes none; the next process
	// that opens the log with a key signs what is there.
	Signer   crypto.Signer
	Size     int64         // bytes after which another file begins; default 64 MiB
	Records  int           // records after which a checkpoint is made, at most; default 4096
	Interval time.Duration // after which a record is covered by a checkpoint; default 10 seconds
	Log      *slog.Logger  // for when writing fails, and works again; nil means none
}

const (
	// writeBehind is how long a record may stay in memory, and writeAt after how many
	// bytes it is written earlier.
	writeBehind = 100 * time.Millisecond
	writeAt     = 64 << 10
	// maxPending bounds the bytes in memory of a log that cannot be written.
	maxPending = 4 << 20
	// again is when a failed write is retried.
	again = time.Second
)

// ErrInUse says that another process writes the log.
var ErrInUse = errors.New("another process writes it")

// A Log is written by one process at a time. It is safe for concurrent use.
type Log struct {
	// Outage is what is known about failures to write or sign the log: one that soon follows
	// another counts until the log has worked for a while.
	Outage outage.Outage

	c       Config
	keyID   string
	name    string
	full    chan struct{}
	reopens chan reopening
	closing chan struct{}
	closed  chan error

	mu       sync.Mutex
	file     *os.File
	gone     *os.File // the file whose removal was logged
	size     int64    // bytes of the file, including pending ones
	pending  []byte   // not written yet
	last     Position
	mark     Position // the newest mark of this process
	unsigned int      // records not covered by a checkpoint
	lost     uint64   // records dropped for lack of memory
	failed   error    // why the log cannot be written or signed, or nil
	ended    bool
	write    *time.Timer // when pending bytes are written
	sign     *time.Timer // when a checkpoint is due
}

// A reopening asks to re-create a file that was moved away, with a new signer.
type reopening struct {
	signer crypto.Signer
	done   chan error
}

// Open starts or continues a log. Its file is made with mode 0600. A log that another
// process writes is [ErrInUse]. If the file ends with something that is not a record, as
// after a crash, it is kept under another name, and another file is started.
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

// Last is the newest record, which may still be in memory.
func (l *Log) Last() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Unsigned is how many records are not covered by a checkpoint.
func (l *Log) Unsigned() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsigned
}

// Err returns why the log cannot currently be written or signed, or nil. In the meantime
// records are kept in memory, as far as they fit; the log later says how many did not.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Record adds a record. It waits for neither a working disk nor the signing key.
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
		select { // requests a checkpoint, and another file if this one is full
		case l.full <- struct{}{}:
		default: // already requested
		}
	}
}

// add appends a line to the pending ones.
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

// flush writes what is pending. If that fails, the rest stays pending.
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

// noteFailure reports once that writing fails, and schedules another try.
func (l *Log) noteFailure(err error) {
	if err == nil {
		return
	}
	l.Outage.Failed(err, func() {
		l.c.Log.Error("the audit log cannot be written: free disk space, or fix the cause of the error", "file", l.c.Path, "error", err)
	})
	l.failed = err
	l.write.Reset(again)
}

// Reopen starts another file if the log's was moved away, and signs with another key from
// now on.
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

// run does whatever takes time.
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
	l.noteFailure(l.put())
}

func (l *Log) end() error {
	l.checkpoint()
	l.Outage.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.failed != nil {
		return errors.Join(fmt.Errorf("audit log: unsigned records: %d: %w", l.unsigned, l.failed), l.file.Close())
	}
	return l.file.Close()
}
