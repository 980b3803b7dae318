package msl

import (
	"errors"
	"time"
)

// A recovery is what a requester does about an error answer (MSL wiki, "Error Handling"):
// what it forgets and how it retries.
type recovery struct {
	forgetEntity bool // the master token of the request, and everything bound to it
	forgetUser   bool // the user ID token of the request, and everything bound to it
	again        bool // send the request again
	bare         bool // without any token
	renew        bool // asking for new tokens
	askUser      bool // with new user authentication data
	askEntity    bool // with another entity, if the application chooses one
}

// recoveries maps response codes to recoveries. Codes not listed are returned to the
// application.
var recoveries = map[ResponseCode]recovery{
	EntityReauth: {forgetEntity: true, again: true, bare: true, askEntity: true},
	// The entity data itself was refused, and would be refused again.
	EntityDataReauth: {forgetEntity: true, bare: true, askEntity: true},
	UserReauth:       {forgetUser: true, again: true},
	UserDataReauth:   {forgetUser: true, again: true, askUser: true},
	SSOTokenRejected: {again: true, askUser: true},
	KeyXRequired:     {again: true, bare: true, renew: true},
	Expired:          {again: true, renew: true},
	Replayed:         {again: true},
}

// afterRefusal is the error of a request that was refused and then failed in another way.
// If the request was sent again, the refusal does not say what became of it: the peer may
// have acted on the last message. Nor does a refusal that only asks for another message.
func afterRefusal(a *attempt, refused, err error) error {
	var peer *PeerError
	if a.remade || errors.As(refused, &peer) && (peer.Response == Replayed || peer.Response == KeyXRequired || peer.Response == Expired) {
		return err
	}
	return errors.Join(refused, err)
}

// mistimed reports whether a peer refused key requests that were made for another time than
// its own, which it has told by refusing them: a device's clock may be wrong.
func mistimed(a *attempt, e *PeerError) bool {
	return a.proven == e && a.plan.keys && e.Code == ErrKeyXIncorrectData && (aheadOf(a.client)-a.ahead).Abs() > time.Minute
}

// idUnchecked reports whether an error answer may have been made before the id
// of the request could be read.
func idUnchecked(r ResponseCode) bool {
	return r == Fail || r == TransientFailure || r == EntityReauth || r == EntityDataReauth
}
