package msl

import "time"

// Continue makes s count on where former stopped, which it replaces while the process runs:
// wrong guesses of users' secrets, and the devices where users have logged in; users whose
// turn it is; signed refusals; the memory of messages; messages of established sessions, for
// which others wait; the remembered sessions; and the hits and misses of [ServerStats]. Where a
// limit differs, its count starts anew. The sessions are opened again from their devices' tokens
// if the limit on them differs, or if the two servers do not have the same Issuer.Versions,
// Issuer.Store and custody of tokens. Call it before the first message to s; former may still
// answer some.
func (s *Server) Continue(former *Server) {
	s.init()
	former.init()
	s.guesses = former.guesses.by(s.Issuer.now)
	s.admission = former.admission.in(s.admission.room)
	s.sessions.lookups = former.sessions.lookups
	own, was := s.Limits, former.Limits
	if own.Sessions == was.Sessions && s.sessions.opens(former.sessions) {
		s.sessions.opened, former.sessions.handedOn = former.sessions.opened, true
	}
	if own.PasswordsAtATime == was.PasswordsAtATime {
		s.turns = former.turns
	}
	if own.ErrorsPerSecond == was.ErrorsPerSecond && own.ErrorsPerSource == was.ErrorsPerSource {
		s.answers, s.proven = former.answers, former.proven
	}
	if own.Unproven == was.Unproven && own.Proven == was.Proven && own.oneMessage() == was.oneMessage() {
		s.memory = former.memory
	}
}

// by makes the throttle use another clock.
func (t *throttle) by(now func() time.Time) *throttle {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = now
	return t
}

// in makes the admission count on other room.
func (a *admission) in(room func() int) *admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.room = room
	return a
}
