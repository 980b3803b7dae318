package msl

import "testing"

// TestTakes lists whether a peer can be answered under the token that this side holds.
func TestTakes(t *testing.T) {
	token := func(serial int64, data string) *MasterToken {
		return &MasterToken{SerialNumber: serial, sealed: signedToken{tokenData: []byte(data)}}
	}
	here, there := new(byte), new(byte)
	c := &Conn{id: here}
	sender := Sender{Identity: "peer", Authenticated: true}
	under := func(g giver) *holding { return &holding{token: token(1, "held"), giver: g} }
	for name, test := range map[string]struct {
		in   *incoming
		held *holding
		want bool
	}{
		"nothing held":                    {&incoming{sender: sender}, nil, true},
		"no token held":                   {&incoming{sender: sender}, &holding{}, true},
		"it delivers another":             {&incoming{sender: sender, header: header{keyResponse: &keyResponse{}}}, under(giver{}), true},
		"it shows the token":              {&incoming{header: header{peer: peerTokens{master: token(1, "held")}}}, under(giver{}), true},
		"it shows another":                {&incoming{sender: sender, header: header{peer: peerTokens{master: token(1, "other")}}}, under(giver{"peer", here, Unbound}), false},
		"it gave it here":                 {&incoming{sender: sender}, under(giver{"peer", here, Unbound}), true},
		"another gave it here":            {&incoming{sender: sender}, under(giver{"other", here, Unbound}), false},
		"it gave it elsewhere":            {&incoming{sender: sender}, under(giver{"peer", there, Unbound}), false},
		"in the same session":             {&incoming{sender: sender, token: token(7, "")}, under(giver{"peer", there, 7}), true},
		"in another session":              {&incoming{sender: sender, token: token(8, "")}, under(giver{"peer", there, 7}), false},
		"another, in that session":        {&incoming{sender: sender, token: token(7, "")}, under(giver{"other", there, 7}), false},
		"nobody is known to have":         {&incoming{sender: Sender{Authenticated: true}}, under(giver{"", here, Unbound}), false},
		"its sender is not authenticated": {&incoming{sender: Sender{Identity: "peer"}}, under(giver{"peer", here, Unbound}), false},
	} {
		if got := c.takes(test.in, test.held); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestGiver records the session in which a peer delivered a token: that of its message, or
// else the one that it has from this side.
func TestGiver(t *testing.T) {
	token := func(serial int64) *MasterToken { return &MasterToken{SerialNumber: serial} }
	id := new(byte)
	for _, test := range []struct {
		shown, theirs *MasterToken
		want          int64
	}{{nil, nil, Unbound}, {token(7), nil, 7}, {nil, token(8), 8}, {token(7), token(8), 7}} {
		c := &Conn{id: id, theirs: peerTokens{master: test.theirs}}
		in := &incoming{sender: Sender{Identity: "peer"}, token: test.shown}
		if got, want := c.giver(in), (giver{"peer", id, test.want}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
