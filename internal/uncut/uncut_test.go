package uncut

import (
	"testing"
	"time"
)

// TestWait checks that the end waits for what was begun, and holds up what is not.
func TestWait(t *testing.T) {
	done := Begin()
	if _, whole := Wait(0); whole {
		t.Error("the end did not wait")
	}
	done()
	resume, whole := Wait(time.Minute)
	if !whole {
		t.Fatal("nothing is written")
	}
	begun := make(chan struct{})
	go func() { Begin()(); close(begun) }()
	select {
	case <-begun:
		t.Error("something began at the end")
	case <-time.After(5 * time.Millisecond):
	}
	resume()
	<-begun
}
