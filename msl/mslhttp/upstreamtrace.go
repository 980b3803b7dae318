package mslhttp

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer is this library's name for tracers.
const tracer = "github.com/msl-hsm/msl-hsm/msl/mslhttp"

// spanOf starts the span of a request to the service, if ctx has that of the message;
// otherwise it returns nil.
func spanOf(ctx context.Context) (context.Context, trace.Span) {
	message := trace.SpanFromContext(ctx)
	if !message.SpanContext().IsValid() {
		return ctx, nil
	}
	return message.TracerProvider().Tracer(tracer).Start(ctx, "upstream request", trace.WithSpanKind(trace.SpanKindClient))
}

// sendSpan sends the span to the service (W3C Trace Context, level 1, sections 3.2 and
// 3.3), instead of what a program may have sent.
func sendSpan(span trace.Span, r *http.Request) {
	if span == nil {
		return
	}
	c := span.SpanContext()
	r.Header = r.Header.Clone()
	r.Header.Set("Traceparent", "00-"+c.TraceID().String()+"-"+c.SpanID().String()+"-"+c.TraceFlags().String())
	r.Header.Del("Tracestate")
	if state := c.TraceState().String(); state != "" {
		r.Header.Set("Tracestate", state)
	}
}

// tellSpan records what became of a request.
func tellSpan(span trace.Span, status int, err error) {
	if span == nil {
		return
	}
	if status > 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if err != nil || status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
}
