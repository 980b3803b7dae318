package msl

import (
	"context"
	"errors"
)

// Offers are the key requests of a message not answered yet.
type offers []namedOffer

type namedOffer struct {
	scheme string
	Offer
}

// add makes an offer of each key exchange that this side's keys can complete. unable is
// why one could not be made.
func (o *offers) add(ctx context.Context, exchanges []Offerer, from Requester) (unable, err error) {
	for _, x := range exchanges {
		offer, err := x.Offer(ctx, from)
		if errors.Is(err, errors.ErrUnsupported) {
			unable = err
			continue
		}
		if err != nil {
			return unable, err
		}
		*o = append(*o, namedOffer{x.Scheme(), offer})
	}
	return unable, nil
}

// requests are the offers in wire form.
func (o offers) requests() (list []schemeData) {
	for _, offer := range o {
		list = append(list, schemeData{scheme: offer.scheme, data: offer.KeyData()})
	}
	return list
}

// accept derives the new session keys from the answer to one of the offers. An offer that
// matches the answer reports what is wrong with it.
func (o offers) accept(ctx context.Context, response *keyResponse) (Outcome, error) {
	failed := fail(ErrKeyXResponseRequestMismatch, "key response data", nil)
	for _, offer := range o {
		if offer.scheme != response.scheme {
			continue
		}
		outcome, err := offer.Accept(ctx, response.data)
		if err == nil {
			return outcome, nil
		}
		if errors.Is(failed, ErrKeyXResponseRequestMismatch) {
			failed = fail(codeOf(err), "key response data", err)
		}
	}
	return Outcome{}, failed
}

func (o *offers) close() {
	for _, offer := range *o {
		offer.Close()
	}
	*o = nil
}
