package msl

import (
	"fmt"
	"testing"
)

// TestLeases lets many users log out, more than are distinguished: whoever did is noticed by
// a request that began before, and by none that begins later, and memory is bounded.
func TestLeases(t *testing.T) {
	c := &Client{}
	begin := func(user string) lease { return c.attempt(&Request{User: user}).lease }
	nobody, first := begin(""), begin("user 0")
	for i := range 3 * maxDeparted {
		user := fmt.Sprint("user ", i)
		last := begin(user)
		if err := c.Logout(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		if first.wanted() || last.wanted() || !begin(user).wanted() || !nobody.wanted() {
			t.Fatalf("after %d: %v %v %v %v", i, first.wanted(), last.wanted(), begin(user).wanted(), nobody.wanted())
		}
	}
	if n := len(c.departed.users); n > maxDeparted {
		t.Errorf("%d users are remembered", n)
	}
	if err := c.Logout(t.Context(), ""); err != nil || !nobody.wanted() {
		t.Errorf("a request without a user is not wanted: %v", err)
	}
	later := begin("later")
	if err := c.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if nobody.wanted() || later.wanted() || !begin("later").wanted() || !begin("").wanted() {
		t.Error("Forget is not noticed, or is by a later request")
	}
}
