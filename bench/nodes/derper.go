package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/seed94491740/tsnode/bench/internal/derper"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/netmap"
)

// derperPort is where derper listens: nothing else is at the core.
const derperPort = 443

// A derperProcess is the reference's relay at the core.
type derperProcess struct {
	cmd   *exec.Cmd
	relay *netmap.DERPMap
}

// startDerper starts the reference's relay and waits until it listens.
func (f *field) startDerper(ctx context.Context) (*derperProcess, error) {
	path, err := f.file(ctx, program{module: "tsnet", pkg: derper.Program})
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(f.ground.core.ip, derperPort)
	id, err := derper.New(f.dir, at.Addr().String())
	if err != nil {
		return nil, err
	}
	d := &derperProcess{exec.CommandContext(ctx, path, id.Args(at.String())...), id.Map(derperPort)}
	log, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := f.ground.core.start(d.cmd); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), derper.Serving) {
			go io.Copy(f.log(), log)
			return d, nil
		}
	}
	d.stop()
	return nil, fmt.Errorf("derper ended before it served: %w", lines.Err())
}

// log is where derper writes: it tells more than we need.
func (f *field) log() io.Writer {
	if f.verbose {
		return os.Stderr
	}
	return io.Discard
}

func (d *derperProcess) pid() int { return d.cmd.Process.Pid }

func (d *derperProcess) stop() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// relaysRow is a stream through our relay and through derper.
func (f *field) relaysRow() rounds.Row {
	at := way{path: relayed.path, derper: true}
	row := rounds.Row{Name: "relays", Metrics: bulkMetrics(relayed, 0)}
	for _, v := range []struct {
		name  string
		kind  kind
		way   way
		least float64
	}{{"ours", ours, relayed, 3}, {"ours at derper", ours, at, 1.3}, {"tsnet at derper", tsnet, at, 0}} {
		row.Variants = append(row.Variants, rounds.Variant{Name: v.name, RatioLeast: v.least, Run: func(ctx context.Context, r *rounds.Round) (rounds.Sample, error) {
			return f.withPair(ctx, v.kind, v.way, r, bulk(1, f.warm))
		}})
	}
	return row
}
