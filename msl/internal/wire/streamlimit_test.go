package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// objectOf returns an object of the given size with a member of the given name.
func objectOf(name string, size int) string {
	return fmt.Sprintf(`{%q:"%s"}`, name, strings.Repeat("x", size-len(name)-7))
}

// A header that is too long is refused once it exceeds the limit, and not only when it
// is complete.
func TestDecoderHeaderLimit(t *testing.T) {
	const limit = 100 << 10
	lim := Limits{Header: limit, Object: 10 * limit}
	for _, size := range []int{limit - 1, limit, limit + 1, 9 * limit} {
		sent := &counting{Reader: strings.NewReader(objectOf("h", size))}
		d := NewDecoder(sent, lim)
		_, err := d.First()
		if size <= limit != (err == nil) || err != nil && !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes of %d: %v", size, limit, err)
		}
		if sent.n > limit || cap(d.mem.buf) > limit {
			t.Errorf("%d bytes of %d: %d were read, into %d", size, limit, sent.n, cap(d.mem.buf))
		}
	}
	d := NewDecoder(strings.NewReader(objectOf("h", limit)+objectOf("payload", 10*limit)+objectOf("payload", 10*limit+1)), lim)
	if _, err := d.First(); err != nil {
		t.Error(err)
	}
	if _, err := d.Next(); err != nil {
		t.Errorf("a chunk as long as it may be: %v", err)
	}
	if _, err := d.Next(); !errors.Is(err, ErrTooLong) {
		t.Errorf("a chunk that is too long: %v", err)
	}
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// The rest of a message is skipped, in as much memory as a header may have.
func TestDecoderFirstAfter(t *testing.T) {
	const limit = 20 << 10
	left := objectOf("payload", 100) + " " + objectOf("payload", 50*limit) + `{"payload":"\"{"}` + objectOf("payload", limit+1)
	for name, in := range map[string]io.Reader{
		"whole": strings.NewReader("{}" + left + " \n" + objectOf("h", limit) + "{}"),
		"bytes": iotest.OneByteReader(strings.NewReader("{}" + left + objectOf("h", limit) + "{}")),
	} {
		most := 0
		hold := func(n int) error { most = max(most, n); return nil }
		d := NewDecoder(held{in, hold}, Limits{Header: limit, Object: 50 * limit})
		for i, size := range []int{2, limit, 2} {
			o, err := d.FirstAfter("payload")
			if err != nil || len(o.Raw()) != size {
				t.Errorf("%s: object %d: %d bytes, %v", name, i, len(o.Raw()), err)
			}
		}
		if _, err := d.FirstAfter("payload"); err != io.EOF {
			t.Errorf("%s: %v at the end", name, err)
		}
		if most > limit {
			t.Errorf("%s: %d bytes were held", name, most)
		}
	}
	for name, in := range map[string]string{
		"first":          objectOf("payload", limit+1),
		"over all":       "{}" + objectOf("payload", 50*limit+1),
		"cut off":        "{}" + objectOf("payload", 2*limit)[:limit+100],
		"no JSON inside": "{}" + objectOf("payload", 2*limit)[:limit+100] + "\x01",
	} {
		d := NewDecoder(strings.NewReader(in), Limits{Header: limit, Object: 50 * limit})
		_, err := d.FirstAfter("payload")
		if name != "first" && err == nil {
			_, err = d.FirstAfter("payload")
		}
		if err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := d.Next(); !errors.Is(again, err) {
			t.Errorf("%s: %v after %v", name, again, err)
		}
	}
}

// held is a reader that is asked before buffers are allocated.
type held struct {
	io.Reader
	hold func(int) error
}

func (h held) Hold(size int) error { return h.hold(size) }

// A refused buffer ends the reading.
func TestDecoderHold(t *testing.T) {
	full := errors.New("no memory left")
	d := NewDecoder(held{strings.NewReader(objectOf("h", 100<<10)), func(size int) error {
		if size > 32<<10 {
			return full
		}
		return nil
	}}, Limits{})
	if _, err := d.First(); !errors.Is(err, full) || cap(d.mem.buf) > 32<<10 {
		t.Errorf("%v, with a buffer of %d bytes", err, cap(d.mem.buf))
	}
}
