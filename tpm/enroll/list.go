package enroll

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Query asks for some of the records, a page at a time. The zero value asks for all.
type Query struct {
	State State     // only those in this state; empty means any
	Since time.Time // only those changed then or later; the zero time means any
	Name  string    // only those whose name has this prefix
	// Left asks only for enrolled devices that attested to a state that the policy does
	// not allow. Each enrolled one has to be looked at.
	Left bool
	// After is the Next of the previous page; empty for the first page.
	After string
	Limit int // records per page, from 1 to [MaxPage]; zero means 100
	// Evidence includes the evidence, which is by far the largest part of a record.
	Evidence bool
}

// MaxPage is the largest number of records in a [Page].
const MaxPage = 1000

// A Page is part of the answer to a [Query]. Records are ordered by their last change,
// newest last, and for a query by name, in the order of names. Following Next finds every
// record that existed from the first page to the last; one that changes in between may
// come twice, and one that is renamed may be left out of a query by name: see [Walk].
type Page struct {
	Records []Record `json:"records"`
	// Next is for the After of the next page, and empty after the last. A page may have
	// fewer records than requested, or none, although more follow.
	Next string `json:"next,omitempty"`
}

// ErrQuery means that a [Query] cannot be answered, because of its After or its Limit.
var ErrQuery = errors.New("no such page")

// Page returns a page of records. The cost depends on the size of the page, not on the
// number of records. The error can be [ErrQuery].
func (l *ledger) Page(ctx context.Context, q Query) (p Page, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		p, err = tx.Page(q)
		return err
	})
	return p, err
}

// Count counts the devices in a state.
func (l *ledger) Count(ctx context.Context, s State) (n int, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		n, err = tx.Count(s)
		return err
	})
	return n, err
}

// Find returns the record of the device with a name, or with an EK hash in hexadecimal.
// Otherwise it returns those whose EK hash has that prefix of at least six digits, at
// most two, since they are different devices. If there is none, the error is
// [ErrUnknown].
func (l *ledger) Find(ctx context.Context, what string) (found []Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		found, err = findIn(tx, what)
		return err
	})
	return found, err
}

func findIn(tx Tx, what string) ([]Record, error) {
	id, err := ParseID(what)
	if err != nil {
		id, err = tx.ByName(what)
	}
	if err == nil {
		r, err := tx.Get(id)
		return []Record{r}, err
	}
	if !errors.Is(err, ErrUnknown) || len(what) < 6 {
		return nil, err
	}
	found, errFound := tx.Beginning(strings.ToLower(what), 2)
	if errFound == nil && len(found) == 0 {
		errFound = err
	}
	return found, errFound
}

// Beginning implements [Tx].
func (t storedTx) Beginning(prefix string, most int) (found []Record, err error) {
	from, err := hex.DecodeString(prefix + strings.Repeat("0", len(prefix)%2))
	if err != nil {
		return nil, nil // no ID has this prefix
	}
	page, err := t.tx.Range(tableRecords, from, nil, most)
	for _, p := range page {
		if !strings.HasPrefix(hex.EncodeToString(p.Key), prefix) {
			break
		}
		r, err := unframe(ID(p.Key), p.Value)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, err
}

// Page implements [Tx].
func (t storedTx) Page(q Query) (Page, error) {
	if q.Limit < 0 || q.Limit > MaxPage {
		return Page{}, fmt.Errorf("enroll: %w: a page must have 1 to %d records", ErrQuery, MaxPage)
	}
	q.Limit = cmp.Or(q.Limit, 100)
	after, err := hex.DecodeString(q.After)
	if err != nil || q.Name == "" && len(after) > 0 && len(after) != positionSize {
		return Page{}, fmt.Errorf("enroll: %w after %.80q", ErrQuery, q.After)
	}
	if q.Name != "" {
		return t.byName(&q, after)
	}
	return t.byTime(&q, after)
}

// byName looks at as many names as a page may have records, whatever else the query asks
// for.
func (t storedTx) byName(q *Query, after []byte) (p Page, err error) {
	from := []byte(q.Name)
	if len(after) > 0 {
		from = kv.After(after)
	}
	names, err := t.tx.Range(tableNames, from, kv.PrefixEnd([]byte(q.Name)), q.Limit+1)
	if err != nil {
		return p, err
	}
	if len(names) > q.Limit {
		names = names[:q.Limit]
		p.Next = hex.EncodeToString(names[q.Limit-1].Key)
	}
	for _, name := range names {
		if len(name.Value) != len(ID{}) {
			return p, fmt.Errorf("enroll: %w: a name refers to no record", ErrDamaged)
		}
		r, err := t.Get(ID(name.Value))
		if err != nil {
			return p, err
		}
		if (q.State == "" || r.State == q.State) && !r.Updated.Before(q.Since) && (!q.Left || r.Left()) {
			p.Records = append(p.Records, q.shown(r))
		}
	}
	return p, nil
}

// shown returns a record in the form requested by the query.
func (q *Query) shown(r Record) Record {
	if !q.Evidence {
		r.Evidence = nil
	}
	return r
}

// byTime merges the starts of what remains in each state.
func (t storedTx) byTime(q *Query, after []byte) (p Page, err error) {
	states := slices.DeleteFunc(States(), func(s State) bool {
		return q.State != "" && s != q.State || q.Left && s != Enrolled
	})
	from := position(q.Since, ID{})
	if q.Since.IsZero() {
		from = nil
	}
	if len(after) > 0 {
		from = kv.After(after)
	}
	var at [][]byte
	for _, s := range states {
		key := stateKey(s)
		pairs, err := t.tx.Range(tableStates, append(key, from...), kv.PrefixEnd(stateKey(s)), q.Limit+1)
		if err != nil {
			return p, err
		}
		for _, pair := range pairs {
			at = append(at, pair.Key[len(key):])
		}
	}
	slices.SortFunc(at, bytes.Compare)
	if len(at) > q.Limit {
		at = at[:q.Limit]
		p.Next = hex.EncodeToString(at[q.Limit-1])
	}
	p.Records, err = t.at(q, at)
	return p, err
}

// at returns those records at these positions that match the query.
func (t storedTx) at(q *Query, positions [][]byte) (all []Record, err error) {
	var ids [][]byte
	for _, position := range positions {
		if len(position) != positionSize {
			return nil, fmt.Errorf("enroll: %w: its index", ErrDamaged)
		}
		ids = append(ids, position[8:])
	}
	if err := t.tx.Prefetch(tableRecords, ids...); err != nil {
		return nil, err
	}
	for _, id := range ids {
		r, err := t.Get(ID(id))
		if err != nil {
			return nil, err
		}
		if !q.Left || r.Left() {
			all = append(all, q.shown(r))
		}
	}
	return all, nil
}
