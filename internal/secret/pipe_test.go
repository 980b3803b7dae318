package secret

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestPipe(t *testing.T) {
	most := bytes.Repeat([]byte("p"), mostInPipe)
	r, err := Pipe(most)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, most) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := Pipe(append(most, 'p')); !errors.As(err, new(TooLong)) {
		t.Errorf("one byte more: %v", err)
	}
}
