package msl_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An unableExchange cannot finish an exchange, so it must not be offered.
type unableExchange struct{ msl.Offerer }

func (unableExchange) Offer(context.Context, msl.Requester) (msl.Offer, error) {
	return nil, msl.Failure(msl.ErrDecryptNotSupported, "exchange", fmt.Errorf("no: %w", errors.ErrUnsupported))
}

// TestUnableOffer sends nothing if no key exchange could be finished, and uses another
// one if there is one.
func TestUnableOffer(t *testing.T) {
	n := softNetwork(t)
	asked := 0
	n.intercept = func(message []byte) []byte { asked++; return message }
	c := n.pskClient("device")
	whole := c.KeyExchanges[0]
	c.KeyExchanges = []msl.Offerer{unableExchange{whole}}
	if _, _, err := send(t, c, secret("x")); !errors.Is(err, msl.ErrDecryptNotSupported) || asked != 0 {
		t.Errorf("%d messages, %v", asked, err)
	}
	c.KeyExchanges = []msl.Offerer{unableExchange{whole}, whole}
	if _, data, err := send(t, c, secret("x")); err != nil || data != "x" || c.Held().MasterToken == nil {
		t.Errorf("%q, %v", data, err)
	}
}
