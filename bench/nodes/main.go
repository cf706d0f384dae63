// Command nodes measures our node beside tsnet's in one run, under the same
// loads and at the same control server. Every node is a process of its own, and
// so is the control server with its relay; rounds alternate between the two
// kinds, and the median counts.
//
//	cd bench && go run ./nodes [-rows bulk1,trips] [-rounds 5] [-json FILE]
//
// Run by root, the nodes are in two network namespaces joined by a veth pair,
// and the kernel's own TCP and UDP over that pair is measured, too; in the rows
// far… an impaired link takes the pair's place. Otherwise all is on loopback,
// without the rows that need a network without UDP or a link.
//
// The agents are nodes/agent and tsnet/agent; what they do is in load. A round
// during which other programs used the machine's processors is repeated, and
// said so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
)

// settings are what the flags say.
type settings struct {
	rounds.Settings
	rows    []string      // empty: all
	kinds   []string      // of variants; empty: all
	length  time.Duration // of one transfer
	warm    time.Duration // that a transfer over a link runs before it is measured
	bursts  time.Duration // from one burst of losses to the next
	settle  time.Duration // before memory is read
	idle    time.Duration // how long an idle node is watched
	conns   int           // connections of a round
	stall   time.Duration // a dial that takes longer counts as stalled
	rate    int           // of the paced packets, per second
	peers   []int         // sizes of netmaps
	nodes   []int         // numbers of nodes in one process
	verbose bool          // show the nodes' logs
	profile string        // folder for CPU profiles of the agents; empty: none
	json    string        // file for the figures; empty: none
	show    bool          // print that file
}

func main() { os.Exit(command(os.Args[1:])) }

// command is the program; it returns the exit code.
func command(args []string) int {
	if len(args) == 2 && args[0] == controlRole {
		return exitCode(runControl(args[1]))
	}
	if len(args) == 1 && args[0] == linkRole {
		return exitCode(runLink())
	}
	s, err := parse(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	return exitCode(run(ctx, s))
}

func exitCode(err error) int {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(os.Stderr, "nodes:", err)
	return 1
}

// parse reads the flags, and writes what is wrong with them.
func parse(args []string, stderr io.Writer) (s settings, err error) {
	fs := flag.NewFlagSet("nodes", flag.ContinueOnError)
	fs.SetOutput(stderr)
	s.AddFlags(fs)
	s.Progress = stderr
	rows := fs.String("rows", "", "what to measure, by name and commas (default all)")
	kinds := fs.String("kinds", "", "whose programs to measure, by name and commas (default all)")
	fs.DurationVar(&s.length, "time", 5*time.Second, "length of each transfer")
	fs.DurationVar(&s.warm, "warm", 3*time.Second, "time that a transfer over a link runs before it is measured: slow start takes a second at 66 ms")
	fs.DurationVar(&s.bursts, "bursts", 10*time.Second, "time from one burst of losses to the next; transfers with bursts last as long at least")
	fs.DurationVar(&s.settle, "settle", 5*time.Second, "time that nodes are left alone before their memory is read")
	fs.DurationVar(&s.idle, "idle", time.Minute, "time that an idle node is watched")
	fs.IntVar(&s.conns, "conns", 2000, "connections of a round")
	fs.DurationVar(&s.stall, "stall", 3*time.Second, "a dial that takes longer counts as stalled")
	fs.IntVar(&s.rate, "rate", 45000, "UDP packets per second, where they are paced")
	fs.Func("peers", "sizes of netmaps, by commas (default 1000,5000,10000)", numbers(&s.peers, 1000, 5000, 10000))
	fs.Func("nodes", "numbers of nodes in one process, by commas (default 20,50)", numbers(&s.nodes, 20, 50))
	fs.StringVar(&s.profile, "profile", "", "folder for CPU profiles of all nodes")
	fs.StringVar(&s.json, "json", "", "file that keeps all figures, the newest of each row, as JSON")
	fs.BoolVar(&s.show, "show", false, "print the tables of the file -json, and measure nothing")
	fs.BoolVar(&s.verbose, "verbose", false, "show the nodes' logs")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if *rows != "" {
		s.rows = strings.Split(*rows, ",")
	}
	if *kinds != "" {
		s.kinds = strings.Split(*kinds, ",")
	}
	return s, s.check(fs)
}

// numbers makes a flag of a list with a default.
func numbers(list *[]int, initial ...int) func(string) error {
	*list = initial
	return func(s string) error {
		*list = nil
		for f := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(f)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number above 0", f)
			}
			*list = append(*list, n)
		}
		return nil
	}
}

// check says what no run can use.
func (s settings) check(fs *flag.FlagSet) error {
	if s.Rounds > 0 && s.conns > 0 && s.rate > 0 && s.length > 0 && s.idle > 0 {
		return nil
	}
	err := errors.New("-rounds, -conns, -rate, -time and -idle: want more than 0")
	fmt.Fprintln(fs.Output(), err)
	return err
}

// run measures rows and prints them.
func run(ctx context.Context, s settings) error {
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
	chosen, err := f.choose(s.rows)
	if err != nil {
		return err
	}
	fmt.Println(f.ground)
	for _, r := range chosen {
		res, err := s.Measure(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		res.Print(os.Stdout)
		if err := book.Record(res); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the rows of these names, all if there is none.
func (f *field) choose(names []string) ([]rounds.Row, error) {
	all := f.rows()
	if len(f.kinds) > 0 {
		all = only(all, f.kinds)
	}
	if len(names) == 0 {
		return all, nil
	}
	var chosen []rounds.Row
	for _, name := range names {
		i := slices.IndexFunc(all, func(r rounds.Row) bool { return r.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("row %q is none of %s", name, strings.Join(namesOf(all), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// only takes the variants of other names out of rows.
func only(all []rounds.Row, names []string) (left []rounds.Row) {
	for _, r := range all {
		r.Variants = slices.DeleteFunc(r.Variants, func(v rounds.Variant) bool { return !slices.Contains(names, v.Name) })
		if len(r.Variants) > 0 {
			left = append(left, r)
		}
	}
	return left
}

func namesOf(all []rounds.Row) (names []string) {
	for _, r := range all {
		names = append(names, r.Name)
	}
	return names
}
