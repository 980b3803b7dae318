package keystore_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A doubted key computes the tags in turn, the last one again and again, and says of itself
// what it is told to.
type doubted struct {
	keystore.MAC
	tags []string
	says error
}

func (d *doubted) Sum([]byte) ([]byte, error) {
	tag := d.tags[0]
	if len(d.tags) > 1 {
		d.tags = d.tags[1:]
	}
	return []byte(tag), nil
}

func (d *doubted) Doubt(_, sum []byte) error { return d.says }

func TestVerify(t *testing.T) {
	fault := keystore.ErrUnavailable
	for name, c := range map[string]struct {
		key  doubted
		want error
	}{
		"matches":                     {doubted{tags: []string{"tag"}, says: errors.New("asked without need")}, nil},
		"does not match":              {doubted{tags: []string{"other"}}, keystore.ErrBadTag},
		"wrong once":                  {doubted{tags: []string{"other", "tag"}, says: fault}, nil},
		"wrong always":                {doubted{tags: []string{"other"}, says: fault}, fault},
		"matches, but is not doubted": {doubted{tags: []string{"other", "tag"}}, keystore.ErrBadTag},
	} {
		got, err := keystore.Verify(&c.key, []byte("before "), nil, []byte("tag"))
		if !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, []byte("before tag")) || err != nil && got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if sum, err := keystore.ConfirmedSum(&doubted{tags: []string{"tag"}}, nil); err != nil || string(sum) != "tag" {
		t.Errorf("confirmed: %q, %v", sum, err)
	}
	if _, err := keystore.ConfirmedSum(&doubted{tags: []string{"tag"}, says: fault}, nil); !errors.Is(err, fault) {
		t.Errorf("not confirmed: %v", err)
	}
}
