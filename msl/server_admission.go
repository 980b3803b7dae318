package msl

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An admission delays messages that begin or resume a session if they would take the
// processors, or the device with the keys, from established sessions. Making a session
// costs many times as much as a message in it, and anyone can ask for one.
//
// While m messages of established sessions are under way on average, and there is room
// for n concurrent messages, n-m steps of others may run, but never less than m/4:
// established sessions keep at least four fifths of the shared capacity. Less than one
// step at a time means a pause after each. Without established sessions nothing waits.
type admission struct {
	room func() int // for concurrent messages: the processors, or more if a device is waited for

	mu          sync.Mutex
	established average
	running     int
	notBefore   time.Time            // earliest start of the next step
	waiting     [applicantRanks]line // the first rank comes first
	alarm       *time.Timer          // next time to look at it again; nil at first
	owed        time.Time            // until when refused messages have used up the share of others
}

// The ranks of messages that wait.
const (
	rankProven   = iota // the sender is authenticated
	rankStranger        // it is not
	applicantRanks
)

const (
	maxApplicants    = 256 // per rank
	maxOfOwner       = maxApplicants / 4
	maxSteps         = 256 // under way, even without established sessions
	admissionWait    = 5 * time.Second
	longestPause     = time.Second
	establishedShare = 4                      // times the share of others
	averageOver      = 200 * time.Millisecond // the time constant of the average
	fewEstablished   = 0.02                   // on average: so few need no room reserved
	roomOfDevice     = 64                     // if a device is waited for
)

var errAdmission = fmt.Errorf("msl: too many messages that begin a session: %w", keystore.ErrBusy)

func newAdmission(room func() int) *admission { return &admission{room: room} }

// roomFor returns how many concurrent messages a server with this issuer handles before
// they take turns.
func roomFor(i *Issuer) int {
	if i.isSlow() {
		return roomOfDevice
	}
	return runtime.GOMAXPROCS(0)
}

// An average is a decaying average of a count.
type average struct {
	now    int
	smooth float64
	at     time.Time
}

func (a *average) add(more int, now time.Time) {
	old := math.Exp(-float64(now.Sub(a.at)) / float64(averageOver))
	a.smooth = a.smooth*old + float64(a.now)*(1-old)
	a.at, a.now = now, a.now+more
}

// begin counts a message of an established session, until the function that it returns
// is called.
func (a *admission) begin() (end func()) {
	if a == nil {
		return func() {}
	}
	a.count(1)
	return func() { a.count(-1) }
}

func (a *admission) count(more int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.established.add(more, time.Now())
}

// take waits until a step of another message may run. The caller calls leave after it. If
// too many are waiting, or it has waited too long, the error is a [keystore.ErrBusy].
func (a *admission) take(ctx context.Context, owner string, rank int) (leave func(), err error) {
	if a == nil {
		return func() {}, nil
	}
	own := &applicant{owner: owner, decided: make(chan struct{})}
	if !a.apply(own, rank) {
		return nil, errAdmission
	}
	timer := time.NewTimer(admissionWait)
	defer timer.Stop()
	select {
	case <-own.decided:
		if own.outdone {
			return nil, errAdmission
		}
		began := time.Now()
		return func() { a.leave(began) }, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = errAdmission
	}
	a.withdraw(own, rank)
	return nil, err
}

func (a *admission) apply(own *applicant, rank int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.waiting[rank].add(own) {
		return false
	}
	a.grant(time.Now())
	return true
}

// limit is how many steps may run at a time.
func (a *admission) limit(now time.Time) float64 {
	a.established.add(0, now)
	m := a.established.smooth
	if m < fewEstablished {
		return maxSteps
	}
	return min(max(float64(a.room())-m, m/establishedShare), maxSteps)
}

// grant lets waiting steps run. The caller holds a.mu.
func (a *admission) grant(now time.Time) {
	limit := max(a.limit(now), 1)
	for a.running < int(limit+0.01) { // the average never quite reaches a whole number
		if now.Before(a.notBefore) && a.running == 0 && limit <= 1 {
			a.wake(a.notBefore.Sub(now))
			return
		}
		next := a.next()
		if next == nil {
			return
		}
		a.running++
		close(next.decided)
	}
	a.wake(averageOver) // there may be more room then, even if no step ends
}

// next removes the applicant whose turn it is.
func (a *admission) next() *applicant {
	for rank := range a.waiting {
		if next := a.waiting[rank].next(); next != nil {
			return next
		}
	}
	return nil
}

// wake grants again after a while. The caller holds a.mu.
func (a *admission) wake(after time.Duration) {
	if a.alarm != nil {
		a.alarm.Reset(after)
		return
	}
	a.alarm = time.AfterFunc(after, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.grant(time.Now())
	})
}

// leave ends a step. A step that had to run alone is followed by the pause that its share
// requires.
func (a *admission) leave(began time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.running--
	if limit := a.limit(now); limit < 1 {
		pause := time.Duration(float64(now.Sub(began)) * (1/limit - 1))
		a.notBefore = now.Add(min(pause, longestPause))
	}
	a.grant(now)
}

// withdraw ends the wait of a step that may have been granted in the meantime.
func (a *admission) withdraw(own *applicant, rank int) {
	a.mu.Lock()
	granted := !a.waiting[rank].remove(own) && !own.outdone
	a.mu.Unlock()
	if granted {
		a.leave(time.Now())
	}
}
