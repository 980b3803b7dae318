package msl_test

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// TestKeyRequestNotDue has requests whose form is right but which this side cannot answer: for
// a parameter group that it does not know, and for pre-shared keys that it does not have. They
// matter only when keys are due, after every check of the message.
func TestKeyRequestNotDue(t *testing.T) {
	group := keyRequest("DIFFIE_HELLMAN", object{"parametersid": "another", "publickey": []byte{0, 2}})
	ladder := keyRequest("JWK_LADDER", object{"mechanism": "PSK"})
	due := byToken(object{"renewalwindow": 1})
	for _, c := range []struct {
		name    string
		want    msl.Code
		message []byte
	}{
		{"not renewable", msl.ErrNone, fromPSK(requests(group, pskRequest, ladder), object{"renewable": false})},
		{"not in the renewal window", msl.ErrNone, fromToken(requests(group))},
		{"of a user, not in the renewal window", msl.ErrNone, fromToken(requests(pskRequest), object{"userauthdata": password})},
		{"group", msl.ErrUnknownKeyXParametersID, fromPSK(requests(group))},
		{"key id", msl.ErrUnsupportedKeyXKeyID, fromPSK(requests(pskRequest))},
		{"mechanism", msl.ErrUnsupportedKeyXMechanism, fromPSK(requests(ladder))},
		{"renewal", msl.ErrUnknownKeyXParametersID, sessionRaw.message(due, one(requests(group)), hello)},
		{"wrong password", msl.ErrEmailPasswordIncorrect, fromPSK(requests(group), passwordOf("x", "y"))},
		{"handshake", msl.ErrUnknownKeyXParametersID, fromPSK(requests(group), object{"handshake": true})},
		{"replayed", msl.ErrMessageReplayedUnrecoverable, sessionRaw.message(due, one(requests(group), object{"nonreplayableid": 1 << 20}), hello)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecorded(t)
			r.server.KeyExchanges = []msl.Responder{
				&keyx.SymmetricResponder{Store: r.store},
				&keyx.DiffieHellman{Store: r.store, Groups: []keyx.DHGroup{recordedGroup()}, AllowSmallGroups: true},
				&keyx.LadderResponder{Form: keyx.JWKLadder, Store: r.store},
			}
			r.server.Custody = msl.CustodyImported
			if c.want != msl.ErrNone {
				r.mustRefuse(t, c.message, c.want, 1)
			} else if e := r.serve(c.message); e.served != nil || string(e.body) != "hello" {
				t.Errorf("%q, %v, answer %s", e.body, e.served, e.wire)
			}
		})
	}
}
