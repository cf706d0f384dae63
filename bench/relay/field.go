package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/derper"
)

const (
	relayHost = "127.0.0.1" // where relays listen
	startWait = 20 * time.Second
	stopWait  = 10 * time.Second
)

// A kind says whose program a process runs.
type kind string

// The kinds of relays.
const (
	ours      kind = "ours"
	reference kind = "reference"
)

// A field is what all rounds share: the programs and the relays' certificate.
type field struct {
	settings
	dir      string            // removed by close
	identity *derper.Identity  // of both kinds of relays
	paths    map[string]string // of the reference's programs, once built
}

// newField makes the certificate.
func newField(s settings) (f *field, err error) {
	f = &field{settings: s, paths: make(map[string]string)}
	if f.dir, err = os.MkdirTemp("", "bench-relay-"); err != nil {
		return nil, err
	}
	if f.identity, err = derper.New(f.dir, relayHost); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *field) close() { os.RemoveAll(f.dir) }

// reference returns the path of a program of the reference, which it builds at
// first use.
func (f *field) reference(ctx context.Context, pkg string) (string, error) {
	if p := f.paths[pkg]; p != "" {
		return p, nil
	}
	p := filepath.Join(f.dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", p, pkg)
	cmd.Dir = "tsnet"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: run this in the folder bench: %s", pkg, err, out)
	}
	f.paths[pkg] = p
	return p, nil
}

// A process is a relay that we have started.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser // a process of ours ends when it is closed
}

// start starts a program. stderr takes its log; nil discards.
func start(stderr io.Writer, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.cmd.Stderr = stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process in good order, or else.
func (p *process) stop() {
	p.in.Close()
	p.cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(stopWait, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	p.cmd.Wait()
}

// startOurs starts this program in another role.
func (f *field) startOurs(role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if f.profile != "" {
		file := filepath.Join(f.profile, fmt.Sprintf("%s-%d.pprof", role, time.Now().UnixMilli()))
		args = append(args, "-cpuprofile", file)
	}
	return start(os.Stderr, self, append([]string{"-role", role}, args...)...)
}

// A relayProcess is a relay under test.
type relayProcess struct {
	*process
	addr string
}

// startRelay starts a relay and waits until it listens.
func (f *field) startRelay(ctx context.Context, k kind) (*relayProcess, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	r := &relayProcess{addr: addr}
	if k == ours {
		r.process, err = f.startOurs("relay", "-addr", addr, "-certs", f.dir)
	} else {
		r.process, err = f.startDerper(ctx, addr)
	}
	if err != nil {
		return nil, err
	}
	if err := awaitListener(ctx, addr); err != nil {
		r.stop()
		return nil, fmt.Errorf("%s relay: %w", k, err)
	}
	return r, nil
}

// startDerper starts the reference's own command.
func (f *field) startDerper(ctx context.Context, addr string) (*process, error) {
	path, err := f.reference(ctx, derper.Program)
	if err != nil {
		return nil, err
	}
	return start(f.log(), path, f.identity.Args(addr)...)
}

// log is where the reference's processes write: they tell more than we need.
func (f *field) log() io.Writer {
	if f.verbose {
		return os.Stderr
	}
	return nil
}

// freeAddr returns an address that nobody listens at.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(relayHost, "0"))
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

func awaitListener(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("does not listen at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
