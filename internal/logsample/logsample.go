// Package logsample keeps a flood of similar lines from filling a log. The first few of
// each kind in a second are written; the rest are counted, and one line reports their
// number. Failures of this side, which an outage repeats for each message, have ten seconds
// instead of one.
package logsample

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	perSecond = 5                // lines of one kind; for failures of this side, per summary
	summary   = 10 * time.Second // between two lines that report how many were suppressed
	maxKinds  = 256              // tracked concurrently; beyond that all new lines share one kind
)

// A Handler passes records on to another handler. Records are of one kind if they share
// the level and the message and, if the attribute "authenticated" is true, the
// attribute "entity": an authenticated sender does not share a limit with others. If the
// attribute "fault" or "class" says that this side failed, all senders share one, since the
// cause is the same.
type Handler struct {
	next  slog.Handler
	kinds *kinds // shared with the handlers returned by WithAttrs and WithGroup
}

// New makes a handler.
func New(next slog.Handler) *Handler {
	return &Handler{next: next, kinds: &kinds{all: map[kind]*count{}, now: time.Now}}
}

type kind struct {
	level   slog.Level
	message string
	entity  string
	ours    [2]string // the attribute that says that this side failed, or empty
}

// period is for how many seconds the allowance of lines is.
func (k kind) period() int64 {
	if k.ours[0] != "" {
		return int64(summary / time.Second)
	}
	return 1
}

// A count counts the lines of one kind.
type count struct {
	period int64 // the number of the newest one since 1970
	lines  int   // in that period
	more   int   // not written
	next   slog.Handler
	timer  *time.Timer // until they are reported
}

type kinds struct {
	now func() time.Time
	mu  sync.Mutex
	all map[kind]*count
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.next.WithAttrs(attrs), h.kinds}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.kinds}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.kinds.take(kindOf(r), h.next) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// Flush immediately reports the lines that were not written.
func (h *Handler) Flush() {
	h.kinds.mu.Lock()
	var pending []kind
	for k, c := range h.kinds.all {
		if c.more > 0 {
			pending = append(pending, k)
		}
	}
	h.kinds.mu.Unlock()
	for _, k := range pending {
		h.kinds.tell(k)
	}
}

func kindOf(r slog.Record) kind {
	k := kind{level: r.Level, message: r.Message}
	proven, entity := false, ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "authenticated":
			proven = a.Value.Kind() == slog.KindBool && a.Value.Bool()
		case "entity":
			entity = a.Value.String()
		case "fault", "class":
			if isOurs(a.Value.String()) {
				k.ours = [2]string{a.Key, a.Value.String()}
			}
		}
		return true
	})
	if proven && k.ours[0] == "" {
		k.entity = strings.Clone(entity)
	}
	return k
}

// isOurs reports whether a fault of package msl or of an agent, or a class of failures of
// package mslhttp, is of this side.
func isOurs(fault string) bool {
	return slices.Contains([]string{"server", "keystore", "application", "load", "tls_key", "device", "no_answer", "internal", "agent"}, fault)
}

// take counts a line, and reports whether it may be written.
func (k *kinds) take(of kind, next slog.Handler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now().Unix()
	c := k.all[of]
	if c == nil {
		if k.sweep(now); len(k.all) >= maxKinds {
			of = kind{level: of.level, message: "lines of other kinds"}
			c = k.all[of]
		}
		if c == nil {
			c = &count{}
			k.all[of] = c
		}
	}
	if period := now / of.period(); c.period != period {
		c.period, c.lines = period, 0
	}
	if c.lines++; c.lines <= perSecond {
		return true
	}
	c.next = next
	if c.more++; c.timer == nil {
		c.timer = time.AfterFunc(summary, func() { k.tell(of) })
	}
	return false
}

// sweep drops counts that have nothing to report, if there are many.
func (k *kinds) sweep(now int64) {
	if len(k.all) < maxKinds {
		return
	}
	for of, c := range k.all {
		if c.more == 0 && c.period != now/of.period() {
			delete(k.all, of)
		}
	}
}

// tell logs how many lines of a kind were not written.
func (k *kinds) tell(of kind) {
	k.mu.Lock()
	c := k.all[of]
	if c == nil || c.more == 0 {
		k.mu.Unlock()
		return
	}
	c.timer.Stop()
	more, next := c.more, c.next
	c.more, c.timer = 0, nil
	k.mu.Unlock()
	r := slog.NewRecord(k.now(), of.level, of.message, 0)
	r.AddAttrs(slog.Int("more", more))
	if of.entity != "" {
		r.AddAttrs(slog.String("entity", of.entity))
	}
	if of.ours[0] != "" {
		r.AddAttrs(slog.String(of.ours[0], of.ours[1]))
	}
	_ = next.Handle(context.Background(), r) // an error could not be reported anywhere
}
