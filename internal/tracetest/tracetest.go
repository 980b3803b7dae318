// Package tracetest has a tracer that remembers its spans, for tests.
package tracetest

import (
	"context"
	"crypto/rand"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// A Recorder creates tracers, and remembers the spans of all of them. It is safe for
// concurrent use.
type Recorder struct {
	noop.TracerProvider
	mu  sync.Mutex
	all []*Span
}

// Spans returns the spans in the order in which they began.
func (r *Recorder) Spans() []*Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Span{}, r.all...)
}

// Tracer returns a tracer that remembers its spans.
func (r *Recorder) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{recorder: r} }

type tracer struct {
	noop.Tracer
	recorder *Recorder
}

// Start begins a span.
func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	config := trace.NewSpanStartConfig(options...)
	s := &Span{recorder: t.recorder, Name: name, Kind: config.SpanKind(), Attributes: map[string]any{}}
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
	if parent, ok := trace.SpanFromContext(ctx).(*Span); ok {
		s.Parent, c.TraceID = parent, parent.context.TraceID()
	} else {
		rand.Read(c.TraceID[:])
	}
	rand.Read(c.SpanID[:])
	s.context = trace.NewSpanContext(c)
	t.recorder.mu.Lock()
	defer t.recorder.mu.Unlock()
	t.recorder.all = append(t.recorder.all, s)
	return trace.ContextWithSpan(ctx, s), s
}

// A Span is a recorded span. It must not be read before it has ended.
type Span struct {
	noop.Span
	recorder   *Recorder
	context    trace.SpanContext
	Parent     *Span // or nil
	Name       string
	Kind       trace.SpanKind
	Attributes map[string]any
	Failed     bool
	Ended      int // how often
}

// SpanContext returns its ids.
func (s *Span) SpanContext() trace.SpanContext { return s.context }

// TracerProvider returns the Recorder.
func (s *Span) TracerProvider() trace.TracerProvider { return s.recorder }

// SetAttributes remembers attributes.
func (s *Span) SetAttributes(all ...attribute.KeyValue) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	for _, a := range all {
		s.Attributes[string(a.Key)] = a.Value.AsInterface()
	}
}

// SetStatus remembers an error.
func (s *Span) SetStatus(code codes.Code, _ string) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.Failed = s.Failed || code == codes.Error
}

// End counts.
func (s *Span) End(...trace.SpanEndOption) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.Ended++
}
