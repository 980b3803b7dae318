package isolated

import (
	"sync/atomic"
	"syscall"
	"time"
)

// Where an answer is likely to come as soon as that of a function in this process, a call keeps
// its turn among the goroutines until then, see hold. So no more of these calls are made at a
// time than there are turns, which is as many as there are processors for them.

// A turn that was kept for longer than mostHeld, which is nearly as long as the runtime leaves it
// to anyone, was kept for nothing: the child hangs, or does not get a processor. After mostVain in a
// row no call keeps its turn for a time that is pause times as long.
const (
	mostHeld = 9 * time.Millisecond
	mostVain = 4
	pause    = 20
)

// A turns tells whether calls are to keep their turns, by what came of the last ones.
type turns struct {
	able  bool // see canHold
	born  time.Time
	vain  atomic.Int32 // in a row
	until atomic.Int64 // when the pause ends that follows, in nanoseconds since born
}

// mayHold reports whether a call may keep its turn now.
func (t *turns) mayHold() bool {
	return t.able && (t.vain.Load() < mostVain || int64(time.Since(t.born)) >= t.until.Load())
}

// read waits for an answer and keeps its turn, for as long as the runtime lets it.
func (t *turns) read(fd int, b []byte) (int, error) {
	start := time.Since(t.born)
	if early := hold(fd); !early {
		if t.vain.Load() > 0 {
			t.vain.Store(0)
		}
		return readHeld(fd, b)
	}
	if now := time.Since(t.born); now-start > mostHeld {
		t.until.Store(int64(now + pause*(now-start)))
		t.vain.Add(1)
	}
	return syscall.Read(fd, b)
}
