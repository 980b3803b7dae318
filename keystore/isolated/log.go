package isolated

import (
	"context"
	"log/slog"
	"slices"
)

// An eventHandler sends what is logged in the child to the parent.
type eventHandler struct {
	out   *eventWriter
	attrs []slog.Attr
}

// Enabled lets everything pass: the parent's log decides.
func (h *eventHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle sends a record.
func (h *eventHandler) Handle(_ context.Context, r slog.Record) error {
	line := &logLine{Level: r.Level, Message: r.Message}
	add := func(a slog.Attr) bool {
		line.Names, line.Values = append(line.Names, a.Key), append(line.Values, a.Value.Resolve().String())
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	return h.out.write(event{Log: line})
}

// WithAttrs adds attributes.
func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &eventHandler{h.out, slices.Concat(h.attrs, attrs)}
}

// WithGroup leaves groups out: the log of a store is flat.
func (h *eventHandler) WithGroup(string) slog.Handler { return h }

// tell logs what the child told.
func (l *logLine) tell(log *slog.Logger) {
	var attrs []slog.Attr
	for i := range min(len(l.Names), len(l.Values)) {
		attrs = append(attrs, slog.String(l.Names[i], l.Values[i]))
	}
	log.LogAttrs(context.Background(), l.Level, l.Message, attrs...)
}
