package leaktest

import (
	"strings"
	"testing"
)

func TestGoroutines(t *testing.T) {
	if err := Goroutines(); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go waitFor(stop, ended)
	if left := goroutines(); len(left) != 1 || !strings.Contains(left[0], "TestGoroutines") {
		t.Errorf("found %q", left)
	}
	close(stop)
	<-ended
	if err := Goroutines(); err != nil {
		t.Error(err)
	}
}

func waitFor(stop <-chan struct{}, ended chan<- struct{}) {
	<-stop
	close(ended)
}
