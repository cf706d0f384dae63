package vpn

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Bounds of the log that is told to the manager (VPN-26).
const (
	logBacklog = 1024    // lines that wait for the writer
	maxText    = 4 << 10 // of a message or value, in bytes before it is one line
	maxFields  = 32      // of a line
)

// LevelCritical is the level of what ends the tunnel.
const LevelCritical = slog.LevelError + 4

// A logQueue holds lines of the log until the writer has time. It never makes
// anyone wait: the oldest lines are dropped, and counted.
type logQueue struct {
	wake chan struct{} // holds a token when there may be lines

	mu      sync.Mutex
	lines   []*wire.Log // oldest first
	dropped int         // since the last line that told of it
}

func newLogQueue() *logQueue { return &logQueue{wake: make(chan struct{}, 1)} }

// push adds a line.
func (q *logQueue) push(l *wire.Log) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == logBacklog {
		q.lines = append(q.lines[:0], q.lines[1:]...)
		q.dropped++
	}
	q.lines = append(q.lines, l)
	q.remind()
}

// remind tells the writer that there are lines.
func (q *logQueue) remind() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// ready returns a channel with a token when there may be lines; a queue that does
// not exist has none.
func (q *logQueue) ready() <-chan struct{} {
	if q == nil {
		return nil
	}
	return q.wake
}

// next returns the frame of the oldest line, or of one that tells how many were
// dropped before it; nil when there is none.
func (q *logQueue) next() []byte {
	l := q.pop()
	if l == nil {
		return nil
	}
	frame, err := encode(&wire.TunnelMessage{Msg: &wire.TunnelMessage_Log{Log: l}})
	if err != nil {
		return []byte{} // cannot be: its texts are short and valid
	}
	return frame
}

func (q *logQueue) pop() (l *wire.Log) {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.dropped > 0:
		l = &wire.Log{Level: wire.Log_WARN, Message: fmt.Sprintf("%d lines of the log were dropped: the manager reads slowly", q.dropped)}
		q.dropped = 0
	case len(q.lines) > 0:
		l = q.lines[0]
		q.lines[0] = nil
		q.lines = q.lines[1:]
	}
	if len(q.lines) > 0 {
		q.remind()
	}
	return l
}

// A logHandler is a slog.Handler that puts lines into a queue.
type logHandler struct {
	queue  *logQueue
	level  slog.Leveler
	names  []string          // of loggers: groups, outermost first
	fields []*wire.Log_Field // of every line
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	l := &wire.Log{Level: levelOf(r.Level), Message: line(r.Message), LoggerNames: h.names, Fields: slices.Clip(h.fields)}
	r.Attrs(func(a slog.Attr) bool {
		l.Fields = appendField(l.Fields, "", a)
		return true
	})
	h.queue.push(l)
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = slices.Clip(h.fields)
	for _, a := range attrs {
		next.fields = appendField(next.fields, "", a)
	}
	return &next
}

// WithGroup implements slog.Handler: a group is the name of a logger.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.names = append(slices.Clip(h.names), line(name))
	return &next
}

// appendField adds an attribute, a group of them as many. Errors are under the
// name that front ends know.
func appendField(fields []*wire.Log_Field, prefix string, a slog.Attr) []*wire.Log_Field {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			fields = appendField(fields, prefix, inner)
		}
		return fields
	}
	if a.Equal(slog.Attr{}) || len(fields) >= maxFields {
		return fields
	}
	name := prefix + a.Key
	if name == "err" {
		name = "error"
	}
	return append(fields, &wire.Log_Field{Name: line(name), Value: line(v.String())})
}

// levelOf is a level as the protocol knows it.
func levelOf(l slog.Level) wire.Log_Level {
	switch {
	case l >= LevelCritical:
		return wire.Log_CRITICAL
	case l >= slog.LevelError:
		return wire.Log_ERROR
	case l >= slog.LevelWarn:
		return wire.Log_WARN
	case l >= slog.LevelInfo:
		return wire.Log_INFO
	}
	return wire.Log_DEBUG
}

// line makes one line of valid text of limited length (VPN-17, VPN-26). What would
// move the cursor of a terminal is written as in Go.
func line(text string) string {
	text = valid(text[:min(len(text), maxText)])
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !unicode.IsControl(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// valid replaces what is not UTF-8, which no message can carry (VPN-17).
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
