// Command tsnode is a tailnet node in userspace: it joins a tailnet without a
// TUN device and without root, and forwards ports both ways.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of the command.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

// run executes the command line and returns the exit code.
func run(args []string) int {
	ctx, stop := signalContext()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var told *toldError
	var usage *usageError
	isUsage := errors.As(err, &usage)
	if !errors.As(err, &told) {
		printProblem(os.Stderr, err)
		if isUsage {
			fmt.Fprintln(os.Stderr, "Run 'tsnode --help' for the commands, 'tsnode COMMAND --help' for their flags.")
		}
	}
	if isUsage {
		return exitUsage
	}
	return exitFailed
}

// signalContext ends with the first SIGINT or SIGTERM; the second one ends the
// process at once (SVC-175).
func signalContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	sig := make(chan os.Signal, 2)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	go endOn(sig, cancel)
	return ctx, func() { signal.Stop(sig); cancel() }
}

// endOn cancels at the first signal and exits at the second.
func endOn(sig <-chan os.Signal, cancel context.CancelFunc) {
	<-sig
	cancel()
	<-sig
	os.Exit(exitFailed)
}

// A usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// newRoot builds the tree of commands. Each call makes a new one, so that tests
// share nothing.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "tsnode",
		Short:         "A tailnet node in userspace: no TUN, no root",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{flagError(err)} })
	root.AddCommand(newBugReport(), newCapture(), newDebug(), newDemo(), newDevnet(), newDNS(), newForward(), newHealthcheck(), newIP(), newLogin(), newLogout(), newMetrics(), newNC(),
		newNetcheck(), newPing(), newRelay(), newRun(), newSet(), newStatus(), newTunnel(), newVersion(), newWhoIs())
	return root
}

// wantedOf says what the flags of package pflag want, by type of their values: their
// own errors are those of package strconv.
var wantedOf = map[string]string{
	"bool": "true or false", "duration": "a duration such as 10s or 1m30s", "int": "a whole number", "uint16": "a number from 0 to 65535", "float64": "a number",
}

// flagError says what a flag wants that could not be understood.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	f := invalid.GetFlag()
	if want := wantedOf[f.Value.Type()]; want != "" {
		return fmt.Errorf("--%s %q: want %s", f.Name, invalid.GetValue(), want)
	}
	return err
}

// usageArgs turns a complaint about arguments into a usageError.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}
