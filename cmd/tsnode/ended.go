package main

import (
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/seed94491740/tsnode/internal/settings"
)

// A toldError is why a process ends, where a person or a log has been told already.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// tellEnd tells why all ends, once, and in the format of the log.
func (f *foreground) tellEnd(err error) error {
	var told *toldError
	var usage *usageError
	switch isJSON := f.settings.Get().LogFormat == settings.JSON; {
	case err == nil, errors.As(err, &told):
		return err
	case isJSON:
		logEnd(f.log, err)
	case errors.As(err, &usage):
		return err // whoever ran the command knows what to say of its usage
	case err.Error() != f.problem:
		printProblem(f.people, err)
	}
	return &toldError{err}
}

// logEnd makes one record of why all ends.
func logEnd(log *slog.Logger, err error) {
	if hint := hintFor(err); hint != "" {
		log = log.With("hint", hint)
	}
	log.Error(err.Error())
}

// tellUnread is tellEnd for a configuration that could not be read: then only flags
// and environment tell of the format.
func (c *configuration) tellUnread(w io.Writer, err error) error {
	format := os.Getenv("TSNODE_LOG_FORMAT")
	if f := c.flags.Lookup("log-format"); f.Changed {
		format = f.Value.String()
	}
	if format != settings.JSON {
		return err
	}
	logEnd(slog.New(newHandler(w, format, slog.LevelInfo)), err)
	return &toldError{err}
}
