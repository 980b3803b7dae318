package msl

import "slices"

// An applicant is a step of a message that waits.
type applicant struct {
	owner   string        // the source or entity that its memory counts for
	decided chan struct{} // closed when it may run, or gave its place to another one
	outdone bool          // it gave its place
}

// A line has the applicants of one rank: those of each owner in the order in which they
// came, and the owners in the order of their turns. None is empty.
type line [][]*applicant

func (l line) length() (n int) {
	for _, own := range l {
		n += len(own)
	}
	return n
}

// of returns where the applicants of an owner are, or -1, and how many they are.
func (l line) of(owner string) (at, n int) {
	at = slices.IndexFunc(l, func(own []*applicant) bool { return own[0].owner == owner })
	if at >= 0 {
		n = len(l[at])
	}
	return at, n
}

// add has an applicant wait, and reports whether there is a place for it.
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

// makeRoom takes the place of the last applicant of the owner that has most of them, for
// one more of an owner that has n, unless that one would then have more.
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

// next removes the applicant whose turn it is, after which that of another owner comes.
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

// remove removes an applicant that waits no more, and reports whether it was there.
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
