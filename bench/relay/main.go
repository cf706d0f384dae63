// Command relay measures our DERP relay beside the reference's in one run. Every
// server is a process of its own; rounds alternate between the two, and the
// median counts. Transfers between nodes through either are a row of bench/nodes.
//
//	cd bench && go run ./relay [-rows throughput1,idle] [-rounds 5] [-json FILE]
//
// The reference is built from bench/tsnet. A round during which other programs
// used the machine's processors is repeated, and said so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// settings are what the flags say.
type settings struct {
	rounds.Settings
	rows    []string
	length  time.Duration // of one transfer
	warm    time.Duration // before anything is measured
	settle  time.Duration // before memory is read
	clients int           // idle ones
	burst   int           // packets a load client writes at once
	verbose bool          // show the log of the reference's processes
	profile string        // folder for profiles of our processes; empty: none
	json    string        // file for the figures; empty: none
	show    bool          // print that file
}

func main() { os.Exit(command(os.Args[1:])) }

// command is the program; it returns the exit code.
func command(args []string) int {
	s, o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	switch o.role {
	case "relay":
		err = load.Profiled(o.profile, func() error { return runRelay(ctx, o) })
	case "":
		err = run(ctx, s)
	default:
		err = fmt.Errorf("role %q is not relay", o.role)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "relay:", err)
		return 1
	}
	return 0
}

// parse reads the flags, and writes what is wrong with them.
func parse(args []string) (s settings, o roleOptions, err error) {
	fs := flag.NewFlagSet("relay", flag.ContinueOnError)
	fs.StringVar(&o.role, "role", "", "internal: the process to be; the flags up to cpuprofile are its own")
	fs.StringVar(&o.addr, "addr", "", "internal: where the relay listens")
	fs.StringVar(&o.certs, "certs", "", "internal: folder of the relay's certificate")
	fs.StringVar(&o.profile, "cpuprofile", "", "internal: file for the process's CPU profile")
	rows := fs.String("rows", strings.Join(rowNames(), ","), "what to measure")
	s.AddFlags(fs)
	s.Progress = os.Stderr
	fs.DurationVar(&s.length, "time", 10*time.Second, "length of each transfer")
	fs.DurationVar(&s.warm, "warm", time.Second, "time that a relay runs before anything is measured")
	fs.DurationVar(&s.settle, "settle", 70*time.Second, "time that idle clients are left alone, more than a keep-alive (DERP-58)")
	fs.IntVar(&s.clients, "clients", 5000, "idle clients")
	fs.IntVar(&s.burst, "burst", 10, "packets that a load client writes at once")
	fs.StringVar(&s.profile, "profile", "", "folder for profiles of our processes")
	fs.StringVar(&s.json, "json", "", "file that keeps all figures, the newest of each row, as JSON")
	fs.BoolVar(&s.show, "show", false, "print the tables of the file -json, and measure nothing")
	fs.BoolVar(&s.verbose, "verbose", false, "show what the reference's processes write to standard error")
	err = fs.Parse(args)
	s.rows = strings.Split(*rows, ",")
	return s, o, err
}

// check says what no run can use.
func (s settings) check() error {
	switch {
	case s.Rounds < 1 || s.clients < 1:
		return fmt.Errorf("-rounds %d, -clients %d: want 1 at least", s.Rounds, s.clients)
	case s.burst < 1 || s.burst > window:
		return fmt.Errorf("-burst %d: want 1 to %d", s.burst, window)
	}
	return nil
}

// run measures all rows and prints them.
func run(ctx context.Context, s settings) error {
	chosen, err := chooseRows(s.rows)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := machine.RaiseFiles(uint64(2*s.clients + 1000)); err != nil {
		return err
	}
	book, err := rounds.OpenBook(s.json)
	if err != nil {
		return err
	}
	if s.show {
		book.Print(os.Stdout)
		return nil
	}
	f, err := newField(s)
	if err != nil {
		return err
	}
	defer f.close()
	for _, r := range chosen {
		res, err := f.measure(ctx, r, ours, reference)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		res.Print(os.Stdout)
		if err := book.Record(res); err != nil {
			return err
		}
	}
	return nil
}
