package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// refuse answers with an error message. All of them are counted against a bound:
// each costs a private-key operation where our own scheme signs.
func (s *Server) refuse(ctx context.Context, source string, w io.Writer, in *incoming, cause error) error {
	ctx, cancel, cause := lastWord(ctx, cause)
	defer cancel()
	if ctx.Err() != nil {
		return context.Cause(ctx) // the client that would read an answer is gone
	}
	code := codeOf(cause)
	id := in.messageID
	if e := (*Error)(nil); errors.As(cause, &e) && e.MessageID >= 0 {
		id = e.MessageID
	}
	if s.Log != nil {
		s.Log.LogAttrs(ctx, refusalLevel(code, cause), "message refused", slog.String("source", source),
			slog.String("entity", in.sender.Identity), slog.Bool("authenticated", in.sender.Authenticated), slog.Int("code", int(code)), slog.String("name", code.Name()),
			slog.Int64("message_id", id), slog.Any("error", cause))
	}
	if in.account.gaveWay() || errors.Is(cause, errBusy) && !in.sender.Authenticated || !s.mayRefuse(ctx, source, in.sender) {
		return noAnswer(code)
	}
	message, err := s.errorMessage(ctx, code, id, textOf(cause, code))
	if err != nil {
		if s.Log != nil {
			s.Log.LogAttrs(ctx, slog.LevelError, "no error message can be made", slog.Any("error", err))
		}
		return noAnswer(code)
	}
	_, err = w.Write(message)
	return err
}

// refusalLevel tells what is the operator's to mend from what is the peer's.
func refusalLevel(code Code, cause error) slog.Level {
	if code == ErrMSLEncodeError || code == ErrInternalException && ofKeyStore(cause) {
		return slog.LevelError
	}
	return slog.LevelInfo
}

// noAnswer returns the error if no error message can report code.
func noAnswer(code Code) error {
	if code == ErrMSLEncodeError {
		return fmt.Errorf("%w: %w", ErrAnswerLost, ErrNoAnswer)
	}
	return ErrNoAnswer
}

// errorMessage makes the answer to the message with that id, or to one whose id
// is not known.
func (s *Server) errorMessage(ctx context.Context, code Code, id int64, text string) ([]byte, error) {
	var err error
	if inRange(id) {
		id = next(id)
	} else if id, err = randomNumber(s.Issuer.Rand); err != nil {
		return nil, err
	}
	us, err := localIdentification(ctx, s.Local)
	if err != nil {
		return nil, err
	}
	defer us.release()
	return us.encodeMessage("errordata", encodeError(code, id, text, "", s.Issuer.now()))
}

// lastWordTime is for an error message that says that time is up.
const lastWordTime = 5 * time.Second

// lastWord gives an exchange whose time is up, but whose peer is still there, the
// time to say so.
func lastWord(ctx context.Context, cause error) (context.Context, context.CancelFunc, error) {
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return ctx, func() {}, cause
	}
	late := &Error{Code: ErrInternalException, Op: "answer in time", MessageID: idOf(cause), Err: cause}
	if codeOf(cause) == ErrMSLEncodeError {
		late.Code = ErrMSLEncodeError // the application acted: the peer is not to come again
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWordTime)
	return ctx, cancel, late
}
