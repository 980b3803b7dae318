package isolated

import (
	"bytes"
	"testing"
)

// TestLaneClosed closes a lane whose call failed, as where the child ended: neither the request
// stays in memory, which may have been a key, nor what came of an answer.
func TestLaneClosed(t *testing.T) {
	l, theirs, err := newLane()
	if err != nil {
		t.Fatal(err)
	}
	theirs.close()
	secret := []byte("a key of sixteen")
	if err := l.send(begin(l.output, byte(opImport)).bytes(secret)); err == nil {
		t.Error("it was sent to nobody")
	}
	copy(l.input, secret)
	input, output := l.input, l.output[:cap(l.output)]
	if !bytes.Contains(output, secret) {
		t.Fatal("the request is elsewhere")
	}
	l.close()
	if bytes.Contains(input, secret) || bytes.Contains(output, secret) {
		t.Error("the secret is still in the lane")
	}
}
