package msl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// refuse answers with an error message. Their rate is limited, since each costs a
// private-key operation if this side's scheme signs.
func (s *Server) refuse(ctx context.Context, source string, w io.Writer, in *incoming, cause error) error {
	ctx, cancel, cause := lastWord(ctx, cause)
	defer cancel()
	if ctx.Err() != nil {
		return context.Cause(ctx) // the client is gone and cannot read an answer
	}
	id := in.messageID
	if noted := idOf(cause); noted >= 0 {
		id = noted
	}
	answer := answerTo(cause)
	in.end.cause, in.end.answer, in.end.fault = cause, answer, in.refusalFault(ctx, answer.code, cause)
	if s.Log != nil {
		what := append([]slog.Attr{slog.String("source", source)}, in.refusal(answer, id, cause)...)
		s.Log.LogAttrs(ctx, in.end.fault.level(), "message refused", what...)
	}
	if in.account.gaveWay() || errors.Is(cause, errBusy) && !in.sender.Authenticated || !s.mayRefuse(ctx, source, in.sender) {
		return noAnswer(answer)
	}
	message, tell, err := errorMessage(ctx, s, answer.withUserMessage(s.Messages, in, cause), id, in.watch)
	if err != nil {
		if s.Log != nil {
			s.Log.LogAttrs(ctx, slog.LevelError, "cannot make an error message", slog.String("fault", in.refusalFault(ctx, ErrInternalException, err).String()), slog.Any("error", err))
		}
		return noAnswer(answer)
	}
	n, err := message.send(w)
	if in.account.wrote(n); err == nil {
		tell()
	}
	return err
}

// refusal is the log record of an error sent to the peer.
func (in *incoming) refusal(answer errorAnswer, id int64, cause error) []slog.Attr {
	list := []slog.Attr{slog.String("entity", in.sender.Identity), slog.Bool("authenticated", in.sender.Authenticated)}
	if answer.code >= 0 {
		list = append(list, slog.Int("code", int(answer.code)), slog.String("name", answer.code.Name()))
	} else {
		list = append(list, slog.String("response", answer.response.String()), slog.Int64("internal_code", answer.internal))
	}
	return append(list, slog.Int64("message_id", id), slog.String("fault", in.end.fault.String()), slog.Any("error", cause))
}

// noAnswer returns the error for a failure that no error message can report.
func noAnswer(a errorAnswer) error {
	if a.code == ErrMSLEncodeError {
		return fmt.Errorf("%w: %w", ErrAnswerLost, ErrNoAnswer)
	}
	return ErrNoAnswer
}

// errorMessage makes the answer to the message with that id, which may be unknown. tell
// reports it, once it is sent.
func errorMessage(ctx context.Context, s *Server, answer errorAnswer, id int64, watch watcher) (message *sealedHeader, tell func(), err error) {
	if inRange(id) {
		id = next(id)
	} else if id, err = randomNumber(s.Issuer.Rand); err != nil {
		return nil, nil, err
	}
	us, err := localIdentification(ctx, s.Local, s.Issuer.Rand)
	if err != nil {
		return nil, nil, err
	}
	defer us.release()
	now := s.Issuer.now()
	message, err = us.sealAs("errordata", answer.encode(id, now))
	return message, func() { watch.sentError(id, now, answer, us, s.Local) }, err
}

// lastWordTime is how long sending an error message may take after the time is up.
const lastWordTime = 5 * time.Second

// lateText is what the peer receives when the time is up, including what had been done by
// then.
func lateText(cause error) string {
	text := "the exchange took too long"
	for e := (*Error)(nil); errors.As(cause, &e); cause = e.Err {
		if e.Text != "" {
			return text + "; " + e.Text
		}
	}
	return text
}

// lastWord gives an exchange whose time is up, but whose peer is still connected, a
// little more time for the error message.
func lastWord(ctx context.Context, cause error) (context.Context, context.CancelFunc, error) {
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return ctx, func() {}, cause
	}
	late := &Error{Code: ErrInternalException, Op: "answer in time", MessageID: idOf(cause), Text: lateText(cause), Err: cause}
	if codeOf(cause) == ErrMSLEncodeError {
		late.Code = ErrMSLEncodeError // the application has acted: the peer must not send the message again
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWordTime)
	return ctx, cancel, late
}
