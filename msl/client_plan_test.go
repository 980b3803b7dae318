package msl

import "testing"

// TestDemands lets each error answer follow a message without and with key requests,
// after which the client still has the tokens of that message, or newer ones.
func TestDemands(t *testing.T) {
	renewing := demands{renew: true}
	for _, test := range []struct {
		name     string
		before   demands
		response ResponseCode
		keys     bool
		newest   bool
		want     demands
	}{
		{"entity authentication", demands{}, EntityReauth, false, true, demands{bare: true}},
		{"entity authentication while renewing", renewing, EntityReauth, true, true, demands{bare: true, renew: true}},
		{"other user data", demands{bare: true}, UserDataReauth, true, true, demands{}},
		{"keys", demands{}, KeyXRequired, false, true, demands{bare: true, renew: true}},
		{"keys, from newer tokens", demands{}, KeyXRequired, false, false, demands{bare: true, renew: true}},
		{"keys, which were offered", demands{}, KeyXRequired, true, true, demands{bare: true, renew: true, keysFirst: true}},
		{"renewal", demands{}, Expired, false, true, renewing},
		{"renewal that another message had", renewing, Expired, false, false, demands{}},
		{"another id while renewing", demands{bare: true, renew: true, keysFirst: true}, Replayed, true, true, renewing},
	} {
		if got := test.before.after(test.response, plan{keys: test.keys}, test.newest); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}
