package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// The memory of a message larger than a little is counted before it is allocated, in the
// budget for unauthenticated or for authenticated senders. A message starts in the former
// and moves once its signature is verified. Each source and each entity has a share.

// errBusy says that the memory for messages is used up.
var errBusy = errors.New("the memory for messages is in use by others, try again later")

// errEnded says that a message was read after its handler returned.
var errEnded = errors.New("msl: the message was handled, and can no longer be read")

// An occupant is a part of a message that occupies memory.
type occupant int

const (
	anObject   occupant = iota // being read
	aRelay                     // data read ahead of it on a persistent connection
	aHeader                    // read: its parts exist until the message ends
	aChunk                     // its data, if compressed
	someTokens                 // compressed service tokens
	aRequest                   // read before it was asked for
	someChunks                 // opened concurrently, if there is memory
	anAnswer                   // waiting, or being sealed
	occupants
)

const (
	// small is the size up to which a part is not counted, so that most messages never
	// wait.
	small = 16 << 10
	// openFactor bounds the memory of an object being opened, as a multiple of its
	// length: the object, its text without escapes, that text without blanks, and the
	// decoded content.
	openFactor = 4
	// onTheirWay is the memory of chunks until they are sent.
	onTheirWay = atOnce * 6 * flushSize
)

// cost is how many bytes of memory a part of that size takes.
func (o occupant) cost(size int) int64 {
	switch {
	case size <= small:
		return 0
	case o == anObject, o == someChunks:
		return openFactor * int64(size)
	case o == aHeader: // the object, and what its data stands for
		return 2 * int64(size)
	case o == anAnswer:
		return 2*int64(size) + onTheirWay
	}
	return int64(size)
}

// A budget is memory shared by messages.
type budget struct {
	total, share int64
	patience     time.Duration // how long to wait for others to end
	youth        time.Duration // how long a message may stall before it makes room for others

	mu    sync.Mutex
	used  int64
	by    map[string]int64 // per source or entity
	all   map[*account]struct{}
	freed chan struct{} // closed when memory was freed
}

func newBudget(total, one int64, patience, youth time.Duration) *budget {
	return &budget{total: total, share: max(total/2, one), patience: patience, youth: youth,
		by: map[string]int64{}, all: map[*account]struct{}{}, freed: make(chan struct{})}
}

// An account counts the memory of one message. A nil one counts nothing.
type account struct {
	interrupt func() // ends a read or write for the message immediately; may be nil
	vouch     func() // informs the transport that the sender is authenticated; may be nil
	movement  movement
	refused   bool // the newest message was refused, and its sender not authenticated
	unproven  *budget
	proven    *budget

	mu     sync.Mutex
	held   [occupants]int64
	budget *budget // nil when the message is over
	owner  string  // source or entity

	// The fields below belong to the budget's lock.
	sum     int64
	evicted bool
	waits   want
}

// whose returns the source or entity that the message is counted for.
func (a *account) whose() string {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owner
}

// A want says why a message cannot get more memory.
type want int

const (
	wantsNothing want = iota
	wantsShare        // the owner has used up its share
	wantsMemory       // the rest is in use by others
)

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// hold records that a part of the message now has that size. It waits while others use
// the memory, and fails if they keep it.
func (a *account) hold(ctx context.Context, what occupant, size int) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	cost := what.cost(size)
	if cost == a.held[what] {
		return nil
	}
	if a.budget == nil {
		return errEnded
	}
	if err := a.budget.take(ctx, a, cost-a.held[what]); err != nil {
		return err
	}
	a.held[what] = cost
	return nil
}

// prove counts the message as an entity's from now on.
func (a *account) prove(ctx context.Context, identity string) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.budget == a.proven && a.owner == identity {
		return nil
	}
	sum := a.budget.give(a)
	a.budget, a.owner = a.proven, identity
	a.movement.restart(1)
	if sum > 0 {
		if err := a.budget.take(ctx, a, sum); err != nil {
			a.held = [occupants]int64{}
			return err
		}
	}
	if a.vouch != nil {
		a.vouch()
	}
	return nil
}

// rest ends a message on a persistent connection. The next one starts unauthenticated.
func (a *account) rest(ctx context.Context, source string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ahead := a.held[aRelay]
	a.budget.give(a)
	a.budget, a.owner, a.held = a.unproven, source, [occupants]int64{}
	a.movement.restart(crawl)
	if ahead == 0 {
		return nil
	}
	if err := a.budget.take(ctx, a, ahead); err != nil {
		return err
	}
	a.held[aRelay] = ahead
	return nil
}

// close ends the message, if it has not ended.
func (a *account) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.budget == nil {
		return
	}
	a.budget.give(a)
	a.budget, a.held = nil, [occupants]int64{}
}

// wrote counts bytes of an answer.
func (a *account) wrote(n int) {
	if a != nil {
		a.movement.wroteMore(n)
	}
}

// gaveWay reports whether the message was ended to make room.
func (a *account) gaveWay() bool {
	if a == nil {
		return false
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	return a.evicted
}

// take counts n more bytes for a message; n may be negative.
func (b *budget) take(ctx context.Context, a *account, n int64) error {
	wait, err := b.try(a, n)
	if wait == nil {
		return err
	}
	patience := time.NewTimer(b.patience)
	defer patience.Stop()
	age := time.NewTicker(b.patience / 8) // some message may be old enough by then
	defer age.Stop()
	for wait != nil {
		select {
		case <-wait:
		case <-age.C:
		case <-patience.C:
			return b.giveUp(a, fmt.Errorf("msl: %w", errBusy))
		case <-ctx.Done():
			return b.giveUp(a, context.Cause(ctx))
		}
		wait, err = b.try(a, n)
	}
	return err
}

// try counts n more bytes if they are free. Otherwise another message may have to make
// room, and the caller tries again when wait is closed.
func (b *budget) try(a *account, n int64) (wait <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.waits = wantsNothing
	own := b.by[a.owner]+n > b.share
	switch {
	case a.evicted:
		return nil, fmt.Errorf("msl: %w", errBusy)
	case n <= 0 || !own && b.used+n <= b.total:
		b.add(a, n)
		return nil, nil
	case a.sum > 0 && b.allWait(a, own):
		return nil, fmt.Errorf("msl: %w", errBusy)
	}
	a.waits = wantsMemory
	if own {
		a.waits = wantsShare
	}
	b.makeRoom(a, own)
	return b.freed, nil
}

// allWait reports whether all others with memory wait for each other's; if the owner's
// share is used up, only that owner's messages count. The last to arrive then gives way,
// or all would wait until their patience ends.
func (b *budget) allWait(a *account, own bool) bool {
	for other := range b.all {
		switch {
		case other == a || own && other.owner != a.owner:
		case other.evicted || other.waits == wantsNothing || own && other.waits != wantsShare:
			return false
		}
	}
	return true
}

func (b *budget) giveUp(a *account, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.waits = wantsNothing
	return err
}

func (b *budget) add(a *account, n int64) {
	b.used += n
	a.sum += n
	a.movement.touch()
	if b.by[a.owner] += n; b.by[a.owner] == 0 {
		delete(b.by, a.owner)
	}
	if b.all[a] = struct{}{}; a.sum == 0 {
		delete(b.all, a)
	}
	if n < 0 {
		close(b.freed)
		b.freed = make(chan struct{})
	}
}

// give returns all memory of a message, and reports how much it was.
func (b *budget) give(a *account) (sum int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sum = a.sum; sum > 0 {
		b.add(a, -sum)
	}
	return sum
}

// makeRoom ends the message that has stalled longest; if the owner's share is used up,
// one of that owner's. A message whose application is working cannot be ended.
func (b *budget) makeRoom(a *account, own bool) {
	var slowest *account
	longest := b.youth
	for other := range b.all {
		if other == a || other.evicted || other.interrupt == nil || own && other.owner != a.owner {
			continue
		}
		if stalled := other.movement.stalled(); stalled > longest {
			slowest, longest = other, stalled
		}
	}
	if slowest != nil {
		slowest.evicted = true
		slowest.interrupt()
	}
}

// A memory bounds the memory of all messages of a server.
type memory struct{ unproven, proven *budget }

const (
	strangersWait  = 2 * time.Second
	strangersYouth = time.Second // longer than any message takes that arrives without a pause
	provenWait     = 5 * time.Second
)

func newMemory(l Limits) memory {
	one := l.oneMessage()
	return memory{newBudget(l.Unproven, one, strangersWait, strangersYouth), newBudget(l.Proven, one, provenWait, provenWait)}
}

// oneMessage is the most memory that a message may occupy.
func (l Limits) oneMessage() int64 {
	read := max(l.Header, l.Chunk)
	return anObject.cost(read) + aRelay.cost(read) + aHeader.cost(l.Header) + int64(3*l.Chunk) + int64(2*l.Held) + anAnswer.cost(l.Held)
}

// open begins a message from an unauthenticated sender.
func (m memory) open(source string, in any) *account {
	a := &account{budget: m.unproven, unproven: m.unproven, proven: m.proven, owner: source}
	a.movement.restart(crawl)
	if i, ok := in.(interface{ Interrupt() }); ok {
		a.interrupt = i.Interrupt
	}
	if p, ok := in.(interface{ Proven() }); ok {
		a.vouch = p.Proven
	}
	return a
}

// decoder reads a message whose objects are counted.
func (a *account) decoder(ctx context.Context, r io.Reader, l Limits, as occupant) *wire.Decoder {
	return wire.NewDecoder(&inlet{r, ctx, a, as}, l.wire())
}
