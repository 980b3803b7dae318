package statefile

import (
	"bytes"
	"testing"
)

func TestJoinSplit(t *testing.T) {
	const magic = "some state v1"
	for _, payload := range []string{"", "{}\n", "two\nlines", magic} {
		data, sum := Join(magic, []byte(payload))
		got, sum2, err := Split(magic, data)
		if err != nil || string(got) != payload || sum != sum2 {
			t.Errorf("%q: %q, %s and %s, %v", payload, got, sum, sum2, err)
		}
		if _, _, err := Split("some state v2", data); err == nil {
			t.Errorf("%q: another magic is taken", payload)
		}
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1
			if _, _, err := Split(magic, bad); err == nil {
				t.Errorf("%q: byte %d is not looked at", payload, i)
			}
			if _, _, err := Split(magic, data[:i]); err == nil {
				t.Errorf("%q: %d bytes of it are taken", payload, i)
			}
		}
	}
}

// TestForm holds the form that is on disks.
func TestForm(t *testing.T) {
	data, _ := Join("msl-hsm tpm state v1", []byte("{}\n"))
	const want = "msl-hsm tpm state v1 ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356\n{}\n"
	if string(data) != want {
		t.Errorf("%q", data)
	}
}
