package msl

import "slices"

// An applicant is a waiting step of a message.
type applicant struct {
	owner   string        // the source or entity that its memory is counted for
	decided chan struct{} // closed when it may run, or lost its place
	outdone bool          // it lost its place
}

// A line has the applicants of one rank: those of each owner in order of arrival, the
// owners in order of their turns. No owner's list is empty.
type line [][]*applicant

func (l line) length() (n int) {
	for _, own := range l {
		n += len(own)
	}
	return n
}

// of returns the position of an owner's applicants, or -1, and their number.
func (l line) of(owner string) (at, n int) {
	at = slices.IndexFunc(l, func(own []*applicant) bool { return own[0].owner == owner })
	if at >= 0 {
		n = len(l[at])
	}
	return at, n
}

// add makes an applicant wait, and reports whether there is a place for it.
func (l *line) add(a *applicant) bool {
	at, n := l.of(a.owner)
	if n >= maxOfOwner || l.length() >= maxApplicants && !l.makeRoom(n) {
		return false
	}
	if at < 0 {
		*l = append(*l, []*applicant{a})
	} else {
		(*l)[at] = append((*l)[at], a)
	}
	return true
}

// makeRoom removes the last applicant of the owner with the most, to make room for one of
// an owner with n, unless that owner would then have more.
func (l line) makeRoom(n int) bool {
	most := 0
	for at := range l {
		if len(l[at]) > len(l[most]) {
			most = at
		}
	}
	last := len(l[most]) - 1
	if last <= n {
		return false
	}
	outdone := l[most][last]
	l[most] = l[most][:last]
	outdone.outdone = true
	close(outdone.decided)
	return true
}

// next removes the applicant whose turn it is; the next turn is another owner's.
func (l *line) next() *applicant {
	if len(*l) == 0 {
		return nil
	}
	own := (*l)[0]
	*l = slices.Delete(*l, 0, 1)
	if len(own) > 1 {
		*l = append(*l, own[1:])
	}
	return own[0]
}

// remove removes an applicant that no longer waits, and reports whether it was in the
// line.
func (l *line) remove(a *applicant) bool {
	at, n := l.of(a.owner)
	if at < 0 {
		return false
	}
	place := slices.Index((*l)[at], a)
	if place < 0 {
		return false
	}
	if (*l)[at] = slices.Delete((*l)[at], place, place+1); n == 1 {
		*l = slices.Delete(*l, at, at+1)
	}
	return true
}
