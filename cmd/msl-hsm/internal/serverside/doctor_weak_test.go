package serverside

import (
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A weakStore lists keys of a module that does not tell everything.
type weakStore struct {
	keystore.Admin
	keys []keystore.Info
}

func (s weakStore) List() ([]keystore.Info, error) { return s.keys, nil }

// TestDoctorWeak has keys with weaknesses, of which the configuration accepts one.
func TestDoctorWeak(t *testing.T) {
	copyable := func(label string, more ...string) keystore.Info {
		return keystore.Info{Label: label, Version: 1, Untold: []string{"CKA_COPYABLE"}, Weaknesses: append([]string{"copyable: the module does not report CKA_COPYABLE"}, more...)}
	}
	c := config.Default()
	c.Keystore.AllowWeak = []string{"copyable"}
	for _, test := range []struct {
		keys []keystore.Info
		want []Check
	}{
		{[]keystore.Info{copyable("msl-issuer-mac"), copyable("msl-seal-mac"), {Label: "msl-identity"}}, []Check{
			{"keys", Warning, "2 keys with weaknesses that keystore.allow-weak accepts: copyable"}}},
		{[]keystore.Info{copyable("msl-issuer-mac", "imported: it was not made in the token")}, []Check{
			{"keys", Failure, "msl-issuer-mac version 1: imported: it was not made in the token: do not destroy it for that: ask the vendor of the module, or accept it in keystore.allow-weak"}}},
		{[]keystore.Info{copyable("other")}, []Check{
			{"keys", Warning, "other, which this server does not use: copyable: the module does not report CKA_COPYABLE"}}},
	} {
		d := &doctor{c: c}
		d.keys(weakStore{keys: test.keys})
		if !slices.Equal(d.found, test.want) {
			t.Errorf("%+v, want %+v", d.found, test.want)
		}
	}
}
