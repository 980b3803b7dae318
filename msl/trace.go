package msl

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// beginSpan begins the span of a message, if there is a tracer. The context makes spans
// that the message causes children of it.
func beginSpan(ctx context.Context, tracer trace.Tracer) (context.Context, trace.Span) {
	if tracer == nil {
		return ctx, nil
	}
	return tracer.Start(ctx, "MSL message", trace.WithSpanKind(trace.SpanKindServer))
}

// endSpan ends the span of a message that the server has finished with. It says what
// became of the message, not who sent it.
func endSpan(span trace.Span, v *Served) {
	if span == nil {
		return
	}
	all := append(make([]attribute.KeyValue, 0, 8),
		attribute.String("msl.result", v.Result()), attribute.Int64("msl.read", v.Read), attribute.Int64("msl.written", v.Written))
	for _, text := range [...]struct{ name, value string }{
		{"msl.scheme", v.Scheme}, {"msl.key_exchange", v.KeyExchange}, {"msl.code", v.Code.Name()},
	} {
		if text.value != "" {
			all = append(all, attribute.String(text.name, text.value))
		}
	}
	if v.Fault != NoFault {
		all = append(all, attribute.String("msl.fault", v.Fault.String()))
	}
	span.SetAttributes(all...)
	if v.Fault >= FaultLoad { // what peers and networks do is not an error of this side
		span.SetStatus(codes.Error, v.Fault.String())
	}
	span.End()
}

// statesOf returns the state of a server, with spans if it has a tracer.
func statesOf(s *Server) State {
	if s.Tracer == nil {
		return s.State
	}
	return tracedState{s.State, s.Tracer}
}

// A tracedState creates a span for each step in the state.
type tracedState struct {
	State
	tracer trace.Tracer
}

func (s tracedState) step(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := s.tracer.Start(ctx, "state "+name)
	defer span.End()
	err := do(ctx)
	if verdict := Code(0); err != nil && !errors.As(err, &verdict) {
		span.SetStatus(codes.Error, "")
	}
	return err
}

// Revoked implements [State].
func (s tracedState) Revoked(ctx context.Context, identity, user string) error {
	return s.step(ctx, "revoked", func(ctx context.Context) error { return s.State.Revoked(ctx, identity, user) })
}

// AcceptID implements [State].
func (s tracedState) AcceptID(ctx context.Context, identity string, serial, id int64) error {
	return s.step(ctx, "accept-id", func(ctx context.Context) error { return s.State.AcceptID(ctx, identity, serial, id) })
}

// Renewable implements [State].
func (s tracedState) Renewable(ctx context.Context, identity string, serial, sequence int64) error {
	return s.step(ctx, "renewable", func(ctx context.Context) error { return s.State.Renewable(ctx, identity, serial, sequence) })
}

// Renew implements [State].
func (s tracedState) Renew(ctx context.Context, identity string, serial, sequence int64) (next int64, err error) {
	err = s.step(ctx, "renew", func(ctx context.Context) error {
		next, err = s.State.Renew(ctx, identity, serial, sequence)
		return err
	})
	return next, err
}
