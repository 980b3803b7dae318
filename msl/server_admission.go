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

// An admission makes messages that begin or resume a session wait where they would take
// the processors, or the device with the keys, from the sessions that are established. To
// make a session costs many times what a message in it costs, and everybody can ask for one.
//
// While m messages of established sessions are under way on average, and there is room
// for n at a time, n-m steps of others may run, but always a quarter of m: so established
// sessions have four fifths at least of what all share. Less than one at a time means that
// there is a pause after each. Without established sessions nobody waits.
type admission struct {
	room func() int // for messages at a time: the processors, or more where a device is waited for

	mu          sync.Mutex
	established average
	running     int
	notBefore   time.Time            // the next step begins
	waiting     [applicantRanks]line // the first rank comes first
	alarm       *time.Timer          // when it has to be looked at again; nil at first
	owed        time.Time            // until when refused messages have used the share of others
}

// The ranks of messages that wait.
const (
	rankProven   = iota // the sender is proven
	rankStranger        // nothing is
	applicantRanks
)

const (
	maxApplicants    = 256 // of a rank
	maxOfOwner       = maxApplicants / 4
	maxSteps         = 256 // under way, also without established sessions
	admissionWait    = 5 * time.Second
	longestPause     = time.Second
	establishedShare = 4                      // times what others get
	averageOver      = 200 * time.Millisecond // the time constant of the average
	fewEstablished   = 0.02                   // on average: so few need no room
	roomOfDevice     = 64                     // where a device is waited for
)

var errAdmission = fmt.Errorf("msl: too many messages that begin a session: %w", keystore.ErrBusy)

func newAdmission(room func() int) *admission { return &admission{room: room} }

// roomFor returns how many messages an issuer's server can have under way before they
// take turns.
func roomFor(i *Issuer) int {
	if i.isSlow() {
		return roomOfDevice
	}
	return runtime.GOMAXPROCS(0)
}

// An average is how many of something there are, with what was a while ago counting less.
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
// too many wait already, or it has waited for too long, the error is a
// [keystore.ErrBusy].
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
	a.wake(averageOver) // there may be more room by then, although no step ends
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

// leave ends a step. One that had to run alone is followed by a pause as long as its share
// asks for.
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

// withdraw ends the wait of a step that may have been granted meanwhile.
func (a *admission) withdraw(own *applicant, rank int) {
	a.mu.Lock()
	granted := !a.waiting[rank].remove(own) && !own.outdone
	a.mu.Unlock()
	if granted {
		a.leave(time.Now())
	}
}
