package enroll

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Walk calls fn with the records that match a query, a page at a time, and each record
// once: one that changes in the meantime does not come again, and none that matches from
// beginning to end is left out. page is like [Authority.Page]. At most most records are
// read, or all if it is zero. Walk remembers half of the ID of each record.
//
// It returns the After with which another walk continues, which is empty if nothing is
// left. That one does not know what this one found.
func Walk(q Query, most int, page func(Query) (Page, error), fn func([]Record) error) (next string, err error) {
	w := walk{Query: q, most: most, page: page, fn: fn, seen: map[halfID]bool{}}
	began := time.Now()
	if next, err = w.through(q); err != nil || next != "" || q.Name == "" || w.pages == 1 {
		return next, err
	}
	// A device that was renamed may have left a page before it was read.
	q.Name, q.After = "", ""
	if since := began.Add(-clockSkew); q.Since.Before(since) {
		q.Since = since
	}
	_, err = w.through(q)
	return "", err
}

// A halfID is the first half of an [ID], which nobody can make the same for two devices.
type halfID [16]byte

type walk struct {
	Query
	most  int
	page  func(Query) (Page, error)
	fn    func([]Record) error
	seen  map[halfID]bool
	pages int
}

// through reads the pages of a query, and returns where it stopped.
func (w *walk) through(q Query) (next string, err error) {
	for {
		q.Limit = cmp.Or(w.Limit, 100)
		if w.most > 0 {
			q.Limit = min(q.Limit, w.most-len(w.seen))
		}
		p, err := w.page(q)
		if err == nil {
			w.pages++
			err = w.fn(slices.DeleteFunc(p.Records, w.known))
		}
		if q.After = p.Next; err != nil || q.After == "" || len(w.seen) == w.most {
			return q.After, err
		}
	}
}

// known reports whether a record came before or has another name, and remembers it.
func (w *walk) known(r Record) bool {
	id := halfID(r.ID[:])
	if w.seen[id] || !strings.HasPrefix(r.Name, w.Name) {
		return true
	}
	w.seen[id] = true
	return false
}
