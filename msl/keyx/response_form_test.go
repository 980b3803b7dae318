package keyx

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestResponseForm has a member of key response data be absent, while all others are of another
// exchange: the form of the data is judged before its content.
func TestResponseForm(t *testing.T) {
	var v keyxVectors
	readVectors(t, "spec/keyx.json", &v)
	for _, c := range v.Cases {
		if c.Error != nil {
			continue
		}
		_, requester := v.sides(t, c)
		offer, err := requester.Offer(t.Context(), msl.Requester{Identity: "client1", Custody: msl.CustodyImported})
		if err != nil {
			t.Fatal(err)
		}
		defer offer.Close()
		var members map[string]string
		if err := json.Unmarshal(keydata(t, c.Response.B64), &members); err != nil {
			t.Fatal(err)
		}
		for absent := range members {
			others := map[string]string{}
			for name := range members {
				if others[name] = "AAAA"; name == "keyid" {
					others[name] = "SESSION"
				}
			}
			delete(others, absent)
			data, _ := json.Marshal(others)
			if _, err := offer.Accept(t.Context(), data); !errors.Is(err, msl.ErrMSLParseError) {
				t.Errorf("%s without %s: %v", c.Name, absent, err)
			}
		}
	}
}
