package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/seed94491740/tsnode/internal/settings"
)

// A console is where a node in the foreground writes lines for people and its log.
// On a terminal it keeps one more line below them, which says what the node waits
// for.
type console struct {
	out      io.Writer
	terminal bool
	columns  func() int // of the terminal; 0: not known

	mu      sync.Mutex
	waiting string // the line below; empty: none
}

// newConsole returns a console that writes to w.
func newConsole(w io.Writer) *console {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return &console{out: w}
	}
	return &console{out: w, terminal: true, columns: func() int { n, _ := columns(f); return n }}
}

// eraseLine returns to the begin of a terminal's line and erases it (ECMA-48, EL).
const eraseLine = "\r\x1b[K"

// Write writes whole lines above the line that says what the node waits for.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == "" {
		return c.out.Write(p)
	}
	io.WriteString(c.out, eraseLine)
	n, err := c.out.Write(p)
	io.WriteString(c.out, c.waiting)
	return n, err
}

// wait shows text below all lines, on a terminal; empty removes what was there.
func (c *console) wait(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal {
		return
	}
	if text = c.fit(text); text == c.waiting {
		return
	}
	c.waiting = text
	io.WriteString(c.out, eraseLine+text)
}

// fit cuts text to what one line of the terminal holds: erasing erases one.
func (c *console) fit(text string) string {
	n := c.columns()
	if letters := []rune(text); n > 0 && len(letters) >= n {
		return string(letters[:n-1]) // the last column would begin a line on some
	}
	return text
}

// A lineLog writes the lines for people into a log, for machines that read all of
// standard error.
type lineLog struct {
	log   *slog.Logger
	level slog.Level
}

// Write makes one record of p.
func (l lineLog) Write(p []byte) (int, error) {
	if text := strings.Join(strings.Fields(string(p)), " "); text != "" {
		text = strings.TrimPrefix(text, "tsnode: ")
		l.log.Log(context.Background(), l.level, strings.TrimPrefix(text, "warning: "))
	}
	return len(p), nil
}

// at returns w for lines of a level, which they have where w is a log.
func at(level slog.Level, w io.Writer) io.Writer {
	if l, ok := w.(lineLog); ok {
		l.level = level
		return l
	}
	return w
}

// newHandler returns the handler of a node's log, in the format of the settings.
func newHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == settings.JSON {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}
