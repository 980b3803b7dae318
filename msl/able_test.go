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

// TestUnableUser sends nothing, not even a handshake, if the user could not be proven.
func TestUnableUser(t *testing.T) {
	n := softNetwork(t)
	n.intercept = func(message []byte) []byte { t.Error("a message was sent"); return message }
	unknown := errors.New("no such user")
	for _, ask := range []func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error){
		nil,
		func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) { return nil, nil },
		func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) { return nil, unknown },
	} {
		c := n.rsaClient("device")
		c.UserAuth = ask
		if _, _, err := send(t, c, forUser(ada)); err == nil {
			t.Error("no error")
		}
	}
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

// A failingExchange makes offers whose answers are refused for cause.
type failingExchange struct {
	msl.Offerer
	cause msl.Code
}

func (x failingExchange) Offer(ctx context.Context, from msl.Requester) (msl.Offer, error) {
	offer, err := x.Offerer.Offer(ctx, from)
	return failingOffer{offer, x.cause}, err
}

type failingOffer struct {
	msl.Offer
	cause msl.Code
}

func (o failingOffer) Accept(context.Context, []byte) (msl.Outcome, error) {
	return msl.Outcome{}, msl.Failure(o.cause, "exchange", nil)
}

// TestWhyNoOfferFits tells what is wrong with a key response by the offer that it answers,
// whatever offers of the same scheme it does not answer.
func TestWhyNoOfferFits(t *testing.T) {
	for _, causes := range [][]msl.Code{{msl.ErrUnwrapError, msl.ErrKeyXResponseRequestMismatch}, {msl.ErrKeyXResponseRequestMismatch, msl.ErrUnwrapError}} {
		c := softNetwork(t).pskClient("device")
		whole := c.KeyExchanges[0]
		c.KeyExchanges = []msl.Offerer{failingExchange{whole, causes[0]}, failingExchange{whole, causes[1]}}
		if _, _, err := send(t, c, secret("x")); !errors.Is(err, msl.ErrUnwrapError) {
			t.Errorf("%v: %v", causes, err)
		}
	}
}
