package keycache

import (
	"testing"
	"testing/synctest"
)

// A value may block when it is closed, until it is released.
type value struct {
	Count
	wait   chan struct{}
	closed bool
}

func newValue() *value {
	v := &value{}
	v.Start()
	return v
}

func (v *value) Release() {
	if v.Drop() {
		if v.wait != nil {
			<-v.wait
		}
		v.closed = true
	}
}

// put stores a value that only the cache holds.
func put(into func(int, *value), key int) *value {
	v := newValue()
	into(key, v)
	v.Release()
	return v
}

func TestOfferedPushOutNobody(t *testing.T) {
	c := New[int, *value](16, nil)
	var used []*value
	for i := range 15 {
		used = append(used, put(c.Put, i))
	}
	for i := range 100 {
		put(c.Offer, 1000+i)
	}
	if c.Len() != 16 {
		t.Errorf("%d values", c.Len())
	}
	newest := put(c.Offer, 2000)
	used = append(used, put(c.Put, 2000)) // the key is in use now, with another value
	if !newest.closed || c.Len() != 16 {
		t.Errorf("an offer that was used: closed %v, %d values", newest.closed, c.Len())
	}
	late := put(c.Offer, 3000)
	for i, v := range used {
		if v.closed {
			t.Errorf("value %d was pushed out", i)
		}
	}
	if !late.closed {
		t.Error("an offer has a place where none is free")
	}
	put(c.Put, 4000)
	if !used[0].closed || used[1].closed {
		t.Error("not the one that was used longest ago was pushed out")
	}
	c.Close()
	if !used[1].closed || c.Len() != 0 || !put(c.Put, 1).closed || !put(c.Offer, 1).closed {
		t.Error("a closed cache holds values")
	}
}

func TestOfferedHaveAnEighth(t *testing.T) {
	c := New[int, *value](80, nil)
	for i := range 100 {
		put(c.Offer, i)
	}
	if c.Len() != 10 {
		t.Errorf("%d values", c.Len())
	}
}

// TestAskingIsNotUsing asks for a value over and over.
func TestAskingIsNotUsing(t *testing.T) {
	c := New[int, *value](2, nil)
	first, second := put(c.Put, 1), put(c.Put, 2)
	for range 10 {
		v, ok := c.Get(1)
		if !ok || v != first {
			t.Fatal("it is not there")
		}
		v.Release()
	}
	put(c.Put, 3)
	if !first.closed || second.closed {
		t.Error("it stays because it was asked for")
	}
}

func TestStale(t *testing.T) {
	gone := false
	c := New[int, *value](10, func(*value) bool { return gone })
	used, offered := put(c.Put, 1), put(c.Offer, 2)
	gone = true
	put(c.Put, 3)
	if !used.closed || !offered.closed {
		t.Error("stale values are kept")
	}
}

// TestSlowEnd has a device that takes forever to destroy a key: nobody else waits for
// it.
func TestSlowEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New[int, *value](2, nil)
		wait := make(chan struct{})
		slow, other := newValue(), newValue()
		slow.wait = wait
		c.Put(1, slow)
		slow.Release()
		c.Put(2, other)
		other.Release()
		go put(c.Put, 3) // the first has to go
		synctest.Wait()
		if k, ok := c.Get(2); !ok || k != other {
			t.Error("the second is not there")
		} else {
			k.Release()
		}
		if _, ok := c.Get(1); ok || slow.closed || c.Len() != 2 {
			t.Errorf("the first is there: %v, closed %v, %d entries", ok, slow.closed, c.Len())
		}
		close(wait)
		synctest.Wait()
		if !slow.closed {
			t.Error("the first is not closed")
		}
		c.Close()
		if !other.closed || c.Len() != 0 {
			t.Errorf("after the end: closed %v, %d entries", other.closed, c.Len())
		}
	})
}

// TestInUse drops keys that are in use: they are closed when their last user is done.
func TestInUse(t *testing.T) {
	c := New[int, *value](1, nil)
	first := newValue()
	c.Put(1, first)
	put(c.Put, 2)
	if first.closed {
		t.Fatal("closed in use")
	}
	first.Release()
	if !first.closed || first.Acquire() {
		t.Error("not closed after its use")
	}
}
