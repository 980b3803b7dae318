package msl

import (
	"context"
)

// A Guessable is a [UserScheme] whose proofs can be guessed, such as passwords. A server
// accepts a limited number of wrong proofs in a row for each user and from each entity.
// It then refuses all further proofs, even correct ones, with [ErrInternalException]
// before the scheme sees them.
type Guessable interface {
	UserScheme
	// Claimed returns the name of the user that an authdata object claims, and whether
	// that user may exist (true if the scheme cannot tell). It runs before Authenticate
	// and does not look at the secret. An error refuses an object that names no user.
	Claimed(ctx context.Context, authdata []byte) (user string, known bool, err error)
}

// accept checks the meaning of a message that answers none, in the protocol's order except
// for the user, who is authenticated last, so that a revoked sender or a replayed message
// learns nothing about a password.
func (s *Server) accept(ctx context.Context, in *incoming) error {
	if in.keyResponse != nil && !in.refused() {
		return in.damageOr(ctx, fail(ErrKeyXResponseRequestMismatch, "key response that answers no request", nil))
	}
	if err := s.judge(ctx, in); err != nil {
		return err
	}
	if err := s.admit(ctx, in); err != nil {
		return err
	}
	return in.damageOr(ctx, in.inferHandshake())
}

// judge makes the checks that precede user authentication. It refuses a message whose key
// requests cannot be answered, in the protocol's order, unless the message's user has to
// be authenticated first.
func (s *Server) judge(ctx context.Context, in *incoming) error {
	if in.refused() {
		return in.unanswerable
	}
	if err := in.checkForm(); err != nil {
		return in.damageOr(ctx, err)
	}
	if in.session != nil {
		if err := s.checkToken(ctx, in); err != nil {
			return err
		}
	}
	if in.nonReplayableID == absent {
		return nil
	}
	if err := statesOf(s).AcceptID(ctx, in.session.Identity, in.token.SerialNumber, in.nonReplayableID); err != nil {
		return fail(codeOf(err), "non-replayable id", err)
	}
	return nil
}

// admit authenticates the user of a message that passed every other check.
func (s *Server) admit(ctx context.Context, in *incoming) error {
	if err := s.authenticateUser(ctx, in); err != nil || in.unanswerable == nil {
		return err
	}
	return in.unanswerable
}

const opLogin = "user authentication"

// authenticateUser judges user authentication data.
func (s *Server) authenticateUser(ctx context.Context, in *incoming) error {
	if in.userAuth == nil {
		return nil
	}
	defer clear(in.userAuth.data) // in the decrypted header: not read again
	scheme, err := pick(s.Users, in.userAuth.scheme, userSchemes, ErrUnidentifiedUserAuthScheme, ErrUserAuthFactoryNotFound)
	if err != nil {
		return err
	}
	identity := in.sender.Identity
	entity, err := s.mayTry(ctx, in)
	if err != nil {
		return err
	}
	if in.session == nil { // an entity with a master token was checked before
		if err := askRevoked(ctx, s, identity, ""); err != nil {
			return err
		}
	}
	user, err := s.login(ctx, scheme, in, payerOf(entity, identity))
	if err != nil {
		return fail(codeOf(err), opLogin, err)
	}
	if err := in.permit(ctx, s.PermitUser, user, ErrUserAuthEntityUserIncorrectData); err != nil {
		return err
	}
	if in.userIDToken != nil && !sameName(user, in.user) {
		return fail(ErrUserIDTokenUserAuthDataMismatch, opLogin, nil)
	}
	if err := askRevoked(ctx, s, identity, user); err != nil {
		return err
	}
	in.user = user
	return nil
}

// mayTry returns the entity of a message, if it may use the user scheme at all.
func (s *Server) mayTry(ctx context.Context, in *incoming) (*Entity, error) {
	entity, err := s.entity(ctx, in.sender.Identity)
	if err != nil {
		return nil, err
	}
	if entity != nil && !isPermitted(entity.UserSchemes, in.userAuth.scheme) {
		return nil, fail(ErrUserAuthEntityIncorrectData, opLogin, nil)
	}
	return entity, in.permit(ctx, s.PermitUser, "", ErrUserAuthEntityIncorrectData)
}

// permit reports whether a user may use the message's scheme at its entity.
func (in *incoming) permit(ctx context.Context, permitted func(ctx context.Context, identity, user, scheme string) (bool, error), user string, refusal Code) error {
	if permitted == nil {
		return nil
	}
	ok, err := permitted(ctx, CanonicalName(in.sender.Identity), CanonicalName(user), in.userAuth.scheme)
	if err != nil {
		return fail(ErrInternalException, "user policy", err)
	}
	if !ok {
		return fail(refusal, opLogin, nil)
	}
	return nil
}

func askRevoked(ctx context.Context, s *Server, identity, user string) error {
	if err := statesOf(s).Revoked(ctx, identity, user); err != nil {
		return fail(codeOf(err), opLogin, err)
	}
	return nil
}

// login waits for a turn, then lets the scheme authenticate the user: checking a password
// is costly on purpose.
func (s *Server) login(ctx context.Context, scheme UserScheme, in *incoming, from payer) (string, error) {
	g, err := guessIn(ctx, s, scheme, in, from)
	if err != nil {
		return "", err
	}
	if err := s.guesses.check(g); err != nil {
		return "", err // without waiting for it
	}
	leave, err := s.turns.take(ctx, from)
	if err != nil {
		return "", err
	}
	defer leave()
	judged, err := s.guesses.begin(g)
	if err != nil {
		return "", err
	}
	user, err := scheme.Authenticate(ctx, in.sender.Identity, in.userAuth.data)
	judged(err)
	return user, err
}

// guessIn returns the guess in a message, or nil. A revoked user is refused as such
// whether or not the secret is right.
func guessIn(ctx context.Context, s *Server, scheme UserScheme, in *incoming, from payer) (*guess, error) {
	guessable, ok := scheme.(Guessable)
	if !ok {
		return nil, nil
	}
	user, known, err := guessable.Claimed(ctx, in.userAuth.data)
	if err != nil {
		return nil, err
	}
	if known {
		if err := askRevoked(ctx, s, in.sender.Identity, user); err != nil {
			return nil, err
		}
	}
	return &guess{from: from, user: CanonicalName(user), known: known, proof: s.guesses.proof(in.messageID, in.userAuth.data)}, nil
}
