package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/msl-hsm/msl-hsm/internal/tracetest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestTrace follows messages to a server: one that is answered, and one whose application
// fails.
func TestTrace(t *testing.T) {
	b := newFaultBench(t)
	var recorder tracetest.Recorder
	b.server.Tracer = recorder.Tracer("")
	var inHandler trace.Span
	b.handle(func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		inHandler = trace.SpanFromContext(ctx)
		return echo(ctx, w, m)
	})
	faultScenarios["new PSK device"](b)
	b.body = bytes.Repeat([]byte("data"), 20)
	b.mustSend()
	b.mustSend()
	b.handle(func(context.Context, *msl.ResponseWriter, *msl.Message) error { return errors.New("the disk is full") })
	b.send()

	var messages []*tracetest.Span
	steps := map[string]int{}
	for _, s := range recorder.Spans() {
		if s.Ended != 1 {
			t.Errorf("%s ended %d times", s.Name, s.Ended)
		}
		if strings.HasPrefix(s.Name, "state ") {
			steps[s.Name]++
			if s.Parent == nil || s.Parent.Name != "MSL message" || s.Failed {
				t.Errorf("%+v", s)
			}
			continue
		}
		messages = append(messages, s)
	}
	if len(messages) < 3 || messages[1] != inHandler {
		t.Fatalf("%d messages, and the handler's context has %v", len(messages), inHandler)
	}
	first, last := messages[0], messages[len(messages)-1]
	if first.Kind != trace.SpanKindServer || first.Attributes["msl.result"] != "answered" || first.Attributes["msl.scheme"] != "PSK" || first.Attributes["msl.key_exchange"] != "SYMMETRIC_WRAPPED" || first.Failed {
		t.Errorf("%+v", first)
	}
	if last.Attributes["msl.result"] != "refused" || last.Attributes["msl.fault"] != "application" || last.Attributes["msl.code"] == nil || !last.Failed {
		t.Errorf("%+v", last)
	}
	if steps["state revoked"] == 0 {
		t.Errorf("steps in the state: %v", steps)
	}
	for _, s := range messages {
		if text := fmt.Sprint(s.Name, s.Attributes); strings.Contains(text, "device") || strings.Contains(text, "data") || strings.Contains(text, "disk") {
			t.Errorf("a name or data is in %s", text)
		}
	}
}
