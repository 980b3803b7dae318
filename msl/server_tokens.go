package msl

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// checkToken judges the tokens of a message that uses a master token.
func (s *Server) checkToken(ctx context.Context, in *incoming) error {
	if !sameName(in.session.Identity, s.Name) { // then the name tells the two sides apart
		if err := in.checkSender(s.Name); err != nil {
			return err
		}
	}
	if err := s.judgeTokens(ctx, in); err != nil {
		return err
	}
	if err := expect(ctx, s, in.token.Expiration); err != nil || !in.token.expired(s.Issuer.now()) {
		return err
	}
	switch {
	case !in.renewable:
		return fail(ErrMessageExpiredNotRenewable, "master token", nil)
	case len(in.keyRequests) == 0 && in.unanswerable == nil:
		return fail(ErrMessageExpiredNoKeyRequestData, "master token", nil)
	case s.Issuer.now().After(in.token.Expiration.Add(s.Issuer.renewExpired())):
		return fail(ErrMasterTokenSequenceNumberOutOfSync, "renewal", errors.New("the token expired too long ago"))
	}
	if err := statesOf(s).Renewable(ctx, in.session.Identity, in.token.SerialNumber, in.token.SequenceNumber); err != nil {
		return fail(codeOf(err), "renewal", err)
	}
	return nil
}

// judgeTokens refuses revoked tokens: a master token, then a user ID token, so that a holder
// whose both tokens are revoked begins with the one that the other is bound to.
func (s *Server) judgeTokens(ctx context.Context, in *incoming) error {
	revoked := statesOf(s).Revoked(ctx, in.session.Identity, in.user)
	userRevoked := errors.Is(revoked, ErrUserIDTokenRevoked)
	if revoked != nil && !userRevoked {
		return fail(codeOf(revoked), "revocation", revoked)
	}
	entity, user, err := countSince(ctx, s, in.session.Identity, in.user)
	switch {
	case err != nil:
		return err
	case s.Issuer.Issued(in.token).Before(entity):
		return fail(ErrMasterTokenIdentityRevoked, "revocation", uncounted("entity", entity, s.Issuer.now()))
	}
	switch {
	case userRevoked:
		return fail(ErrUserIDTokenRevoked, "revocation", revoked)
	case in.userIDToken == nil:
		return nil
	case s.Issuer.IssuedUser(in.userIDToken).Before(user):
		return fail(ErrUserIDTokenRevoked, "revocation", uncounted("user", user, s.Issuer.now()))
	}
	return s.Issuer.CheckUser(in.userIDToken)
}

// countSince returns from when on tokens of an entity and of a user count.
func countSince(ctx context.Context, s *Server, identity, user string) (entity, ofUser time.Time, err error) {
	if dates, ok := s.State.(TokenDates); ok {
		entity, ofUser, err = dates.CountSince(ctx, identity, user)
	}
	if err == nil && s.CountSince != nil {
		var also time.Time
		if also, err = s.CountSince(ctx, CanonicalName(identity)); also.After(entity) {
			entity = also
		}
	}
	if err != nil {
		err = fail(codeOf(err), "revocation", err)
	}
	return
}

// clocksApart bounds how far ahead the time is from which tokens count: the clocks of servers
// sharing a state may be five minutes apart, and so far after the latest of them old tokens end.
const clocksApart = 12 * time.Minute

// uncounted says why a token of an entity or of a user does not count.
func uncounted(whose string, since, now time.Time) error {
	if since.Sub(now) > clocksApart {
		return fmt.Errorf("tokens of this %s count only from %s on, which is ahead of the clock here: correct the clock that is wrong; if it was that of the command that changed the %s, revoke and unrevoke it; if a device with a TPM enrolled then, enroll it again; if it, a key or a certificate of it was revoked then, or another device had its name, revoke each of these devices again, then reinstate it and enroll it; if it was that of a command that restored or imported the whole state, repeat that", whose, since.UTC().Format(time.DateTime), whose)
	}
	return fmt.Errorf("it was issued before the tokens of this %s were made invalid", whose)
}

// issueTimes returns when new tokens of an entity and of a user are issued: now, or a
// little later if the clock by which older ones were ended is ahead of this one.
// Otherwise the new tokens would not count, and their holder would be sent to get others
// again and again.
func issueTimes(ctx context.Context, s *Server, identity, user string) (entity, ofUser time.Time, err error) {
	now := s.Issuer.now()
	if entity, ofUser, err = countSince(ctx, s, identity, user); err != nil {
		return now, now, err
	}
	return issueTime(now, entity), issueTime(now, ofUser), nil
}

func issueTime(now, since time.Time) time.Time {
	if since.After(now) && since.Sub(now) <= clocksApart {
		return since
	}
	return now
}

// expect informs a state that is a Forgetter how long a master token with that expiration
// is accepted.
func expect(ctx context.Context, s *Server, expiration time.Time) error {
	f, ok := s.State.(Forgetter)
	if !ok {
		return nil
	}
	if err := f.Expect(ctx, expiration.Add(s.Issuer.renewExpired())); err != nil {
		return fail(codeOf(err), "remember master token", err)
	}
	return nil
}
