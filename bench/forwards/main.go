// Command forwards measures what forwarded connections and flows of datagrams cost:
// how much memory each takes while it is held, and how long opening one takes.
//
//	cd bench && go run ./forwards [-R] [-conns 10000] [-cycles 100000] [-flows 1000]
//
// Three processes take part: the client, which is the command itself; the near
// node, whose forwards -L lead into the tailnet and whose memory is read; and the
// far node with the service and the control server. With -R the near node's forwards
// lead out of the tailnet, to a service on this machine in a process of its own, and
// the client comes through the far node, by forwards -L of that. Each connection ends with the client's
// half-close, after an exchange of 64 bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"
)

// settings are what the flags say.
type settings struct {
	conns  int           // held at once
	cycles int           // opened and closed
	flows  int           // of datagrams, held at once
	at     int           // how many are opened at a time
	settle time.Duration // before memory is read
	remote bool          // forwards -R are measured
	limit  int64         // MemoryLimit of the near node in bytes; 0: none
}

// Roles of the other processes, by their first argument.
const (
	farRole    = "far"    // the far node, with the service
	enterRole  = "enter"  // the far node, by which the client enters the tailnet
	nearRole   = "near"   // the node with the forwards that are measured
	serverRole = "server" // a service on this machine
)

func main() { os.Exit(command(os.Args[1:])) }

// command is the program; it returns the exit code.
func command(args []string) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	switch {
	case len(args) == 1 && (args[0] == farRole || args[0] == enterRole):
		return exitCode(runFar(ctx, args[0] == enterRole, os.Stdin, os.Stdout))
	case len(args) == 1 && args[0] == serverRole:
		return exitCode(runServer(ctx, os.Stdin, os.Stdout))
	case len(args) > 0 && args[0] == nearRole:
		return exitCode(runNear(ctx, args[1:], os.Stdin, os.Stdout))
	}
	var s settings
	fs := flag.NewFlagSet("forwards", flag.ContinueOnError)
	fs.IntVar(&s.conns, "conns", 10_000, "connections that are held at once")
	fs.IntVar(&s.cycles, "cycles", 100_000, "connections that are opened and closed")
	fs.IntVar(&s.flows, "flows", 1_000, "flows of datagrams that are held at once")
	fs.IntVar(&s.at, "at", 64, "how many are opened at a time")
	fs.DurationVar(&s.settle, "settle", 3*time.Second, "time that all is left alone before memory is read")
	fs.BoolVar(&s.remote, "R", false, "measure forwards -R in place of -L")
	fs.Int64Var(&s.limit, "memory-limit", 0, "MemoryLimit of the near node, in bytes")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	return exitCode(run(ctx, &s))
}

func exitCode(err error) int {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(os.Stderr, "forwards:", err)
	return 1
}

// run starts the nodes, puts load on them and prints the table.
func run(ctx context.Context, s *settings) error {
	role, service := farRole, greeting{}
	if s.remote {
		server, listens, err := start(ctx, serverRole)
		if err != nil {
			return err
		}
		defer server.stop()
		role, service = enterRole, listens
	}
	far, tailnet, err := start(ctx, role)
	if err != nil {
		return err
	}
	defer far.stop()
	near, forwards, err := start(ctx, append([]string{nearRole, tailnet.URL, tailnet.AuthKey, fmt.Sprint(s.limit)}, service.addresses()...)...)
	if err != nil {
		return err
	}
	defer near.stop()
	c := client{settings: s, near: near, tcp: forwards.TCP, udp: forwards.UDP}
	if s.remote {
		c.tcp, c.udp = tailnet.TCP, tailnet.UDP
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "load\tin all\topening one, median\t99 of 100\tmemory before\twith it\tof each\tafter it")
	for _, measure := range []func(context.Context) (row, error){c.hold, c.cycle, c.flow} {
		r, err := measure(ctx)
		if err != nil {
			return err
		}
		each := "-"
		if r.held > 0 {
			each = fmt.Sprintf("%.1f kB", float64(r.with-r.before)/1e3/float64(r.held))
		}
		fmt.Fprintf(table, "%s\t%.1f s\t%v\t%v\t%.1f MB\t%.1f MB\t%s\t%.1f MB\n", r.name, r.took.Seconds(),
			r.median.Round(time.Microsecond), r.most.Round(time.Microsecond), mega(r.before), mega(r.with), each, mega(r.after))
	}
	return table.Flush()
}

func mega(bytes int64) float64 { return float64(bytes) / 1e6 }
