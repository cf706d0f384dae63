package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/proxy"
)

// everySetting is what a node in the foreground has.
const everySetting = settings.Node | settings.Route | settings.Serve

// A configuration is where the settings of a node in the foreground come from. They
// can be read again.
type configuration struct {
	file  string // that --config names; empty: what the environment says, if anything
	flags *pflag.FlagSet
}

// add defines the flags.
func (c *configuration) add(f *pflag.FlagSet) {
	c.flags = f
	settings.AddFlags(f, everySetting)
	f.StringVar(&c.file, "config", "", "HuJSON file with the flags' names as keys; the environment beats it, and flags beat that")
}

// path is the configuration file; empty: none.
func (c *configuration) path() string {
	return cmp.Or(c.file, os.Getenv(settings.ConfigVariable))
}

// read returns what file, environment and flags say together.
func (c *configuration) read() (*settings.Settings, error) {
	src := settings.Sources{Name: c.path(), Environ: os.Environ(), Flags: c.flags, Groups: everySetting}
	var mode fs.FileMode
	var err error
	if src.Name != "" {
		if src.File, mode, err = readConfig(src.Name); err != nil {
			return nil, &usageError{err}
		}
	}
	s, err := src.Read()
	if err != nil {
		return nil, &usageError{err}
	}
	if others := mode & 0o044; others != 0 && runtime.GOOS != "windows" && s.FileHasSecret() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s holds a secret, and other users may read it: chmod 600 it, or keep the secret in a file of its own, file:PATH", src.Name))
	}
	return s, nil
}

// readConfig reads a configuration file, and returns its permissions.
func readConfig(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("configuration: %w: name a file that this user may read with --config or %s", err, settings.ConfigVariable)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("configuration: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, settings.MaxFile+1))
	if err != nil {
		return nil, 0, fmt.Errorf("configuration: %w", err)
	}
	return append(text, '\n'), info.Mode().Perm(), nil // even an empty file must hold an object
}

// hangups has SIGHUP arrive at the channel that it returns, where there is a file to
// read again. Without one it ends the context, as SIGTERM does: it comes when the
// terminal is closed. One that was ignored from the start, by nohup, stays so.
func (c *configuration) hangups(ctx context.Context) (context.Context, <-chan os.Signal, func()) {
	switch {
	case c.path() != "":
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		return ctx, hup, func() { signal.Stop(hup) }
	case signal.Ignored(syscall.SIGHUP):
		return ctx, nil, func() {}
	}
	ctx, stop := endOnHangup(ctx)
	return ctx, nil, stop
}

// endOnHangup returns a context that ends with SIGHUP, and what lets go of it.
func endOnHangup(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	h := &hangup{signals: make(chan os.Signal, 2), stopped: make(chan struct{}), cancel: cancel}
	signal.Notify(h.signals, syscall.SIGHUP)
	go h.serve()
	return ctx, h.stop
}

// A hangup ends a context with SIGHUP. A signal of another kind is the second one then
// (SVC-175); SIGHUP is not, which comes from shell and kernel alike when a terminal is
// closed.
type hangup struct {
	signals chan os.Signal
	stopped chan struct{}
	cancel  context.CancelFunc
}

// serve waits for signals until stop.
func (h *hangup) serve() {
	for {
		select {
		case s := <-h.signals:
			if s != syscall.SIGHUP {
				os.Exit(exitFailed)
			}
		case <-h.stopped:
			return
		}
		h.cancel()
		signal.Notify(h.signals, os.Interrupt, syscall.SIGTERM)
	}
}

func (h *hangup) stop() {
	signal.Stop(h.signals)
	h.cancel()
	close(h.stopped)
}

// forwardsOf returns the forwards and proxies that settings name; none with -W, as
// ssh's.
func forwardsOf(s *settings.Settings) (specs []proxy.Spec, err error) {
	if err := checkStackless(s); err != nil {
		return nil, err
	}
	if s.Stdio != "" {
		return nil, nil
	}
	specs, err = parseForwards(forwardWords(s.Local, s.Remote, s.SOCKS5, s.HTTPProxy))
	if err != nil {
		return nil, &usageError{err}
	}
	return specs, nil
}

// parseProxy returns what parses the address of a proxy of one kind.
func parseProxy(kind proxy.Kind) func(string) ([]proxy.Spec, error) {
	return func(text string) ([]proxy.Spec, error) {
		spec, err := proxy.ParseProxy(kind, text)
		return []proxy.Spec{spec}, err
	}
}
