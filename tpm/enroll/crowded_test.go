package enroll

import (
	"context"
	"fmt"
	"testing"
)

// A crowd is records that others change all the time: a transaction has to run again, until
// it gives up, if it changes more than a few records.
type crowd struct {
	Records
	most, updates int
}

func (c *crowd) Update(ctx context.Context, fn func(Tx) error) error {
	c.updates++
	for n := c.most + 1; n > c.most; {
		n = 0
		err := c.Records.Update(ctx, func(tx Tx) error {
			err := fn(counting{tx, &n})
			if err == nil && n > c.most {
				err = errMoved // which undoes it
			}
			return err
		})
		if n <= c.most {
			return err
		}
	}
	return nil
}

type counting struct {
	Tx
	n *int
}

func (c counting) Put(r Record) error {
	*c.n++
	return c.Tx.Put(r)
}

// TestCrowded approves many devices where only small transactions come to an end.
func TestCrowded(t *testing.T) {
	for _, most := range []int{1, 2, 5, 1000} {
		var c *crowd
		o := newOffice(t, Policy{}, func(settings *Config) {
			c = &crowd{Records: settings.Records, most: most}
			settings.Records = c
		})
		var list []Approval
		for n := range 300 {
			list = append(list, Approval{ID: ID{byte(n >> 8), byte(n), 1}, Name: fmt.Sprint("device-", n)})
		}
		list[7].Name = "not a name"
		for i, err := range o.ApproveAll(t.Context(), list) {
			if (err != nil) != (i == 7) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n, err := o.Count(t.Context(), Approved); n != len(list)-1 || err != nil {
			t.Errorf("%d approved, %v", n, err)
		}
		if c.updates > 2*len(list)/min(most, o.c.Records.AtOnce())+20 {
			t.Errorf("%d transactions for %d at a time", c.updates, most)
		}
	}
}
