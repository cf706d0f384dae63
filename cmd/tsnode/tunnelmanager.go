package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/vpn"
)

// A deadlines says how long a tunnel may take to end (vpn-tunnel.md section 7.3).
type deadlines struct {
	answer time.Duration // to answer Stop, and to close the stream
	end    time.Duration // to end by itself then, before SIGTERM
	kill   time.Duration // after SIGTERM, before SIGKILL
}

// endings are the deadlines of a front end. vpn.Manager.Stop has those of answers,
// 5 s for each of the two.
var endings = deadlines{answer: 15 * time.Second, end: 5 * time.Second, kill: 5 * time.Second}

// managerOnly are the flags that a tunnel process is not given.
var managerOnly = map[string]bool{
	"manager": true, "json": true, "fd": true, "read-fd": true, "write-fd": true,
	"tun": true, "tunnel-netns": true, "tunnel-user": true, "resolver": true,
	"auth-key": true, "authkey": true, "login-server": true,
}

// manage is the manager of a tunnel process until ctx ends or the process does.
func (o *tunnelOptions) manage(ctx context.Context, std stdio) (err error) {
	s, err := o.settings()
	if err != nil {
		return err
	}
	token, err := authKeyOf(ctx, s, std.in, std.err)
	if err != nil {
		return err
	}
	device, err := o.makeDevice()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.close(context.WithoutCancel(ctx))) }() // after the process has ended
	p := &managerPrinter{out: std.out, json: o.json}
	process, stream, err := o.startTunnel(ctx, device, std.err)
	if err != nil {
		return err
	}
	m, err := vpn.Dial(ctx, stream, vpn.ManagerConfig{
		Apply: func(ctx context.Context, n vpn.NetworkSettings) error {
			return errors.Join(p.settings(ctx, n), device.apply(ctx, n))
		},
		Events: p.event, Header: vpn.HeaderOrder(o.header), Logger: newQuietLogger(std.err),
	})
	if ctx.Err() != nil {
		err = nil // who interrupts a greeting knows
	}
	if m != nil {
		start := vpn.StartOptions{ControlURL: s.LoginServer, Token: token, Descriptor: process.descriptor}
		err = errors.Join(process.drive(ctx, m, p, start), m.Close())
	}
	return errors.Join(err, process.wait())
}

// drive starts the tunnel, waits until ctx ends or the tunnel does, and stops it. That
// ctx ends is no error.
func (p *tunnelProcess) drive(ctx context.Context, m *vpn.Manager, out *managerPrinter, start vpn.StartOptions) error {
	if err := m.Start(ctx, start); err != nil {
		stopped := p.stop(ctx, m)
		if ctx.Err() != nil {
			return stopped
		}
		return errors.Join(err, stopped)
	}
	out.say("Started", m.Version(), fmt.Sprintf("the tunnel is up, protocol %v", m.Version()))
	select {
	case <-ctx.Done():
		return p.stop(ctx, m)
	case <-m.Done():
		return errors.Join(errors.New("the tunnel has ended by itself"), m.Err())
	}
}

// A tunnelProcess is a tunnel that runs as a process.
type tunnelProcess struct {
	cmd        *exec.Cmd
	end        context.CancelFunc // asks it to end with SIGTERM, and kills it when it does not
	descriptor int                // of the device in it; 0: none
	within     deadlines
}

// stop stops the tunnel, also when ctx has ended. One that does not answer, or does
// not close the stream, is asked to end at once.
func (p *tunnelProcess) stop(ctx context.Context, m *vpn.Manager) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.within.answer)
	defer cancel()
	err := m.Stop(ctx)
	var refused *vpn.RefusedError
	if err != nil && !errors.As(err, &refused) {
		p.end()
	}
	return err
}

// startTunnel starts a tunnel process with the flags that were set; the stream is
// its standard input and output.
func (o *tunnelOptions) startTunnel(ctx context.Context, device *managedDevice, stderr io.Writer) (*tunnelProcess, vpn.Stream, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p := newTunnelProcess(ctx, endings, self, append([]string{"tunnel"}, tunnelFlags(o.flags)...)...)
	cmd := p.cmd
	cmd.Args[0], cmd.Stderr = os.Args[0], stderr
	cmd.Env = withoutSecrets(os.Environ())
	detach(cmd)
	p.descriptor = device.passTo(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		p.end()
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = runAs(o.tunnelUser, cmd)
	}
	if err == nil {
		err = startIn(o.tunnelNetns, cmd)
	}
	if err != nil {
		p.end()
		return nil, nil, fmt.Errorf("start a tunnel process: %w", err)
	}
	return p, vpn.Pair(out, in), nil
}

// newTunnelProcess is a process that does not run yet. It ends when it is told to,
// over the stream, and not with ctx.
func newTunnelProcess(ctx context.Context, within deadlines, program string, args ...string) *tunnelProcess {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = within.kill
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return &tunnelProcess{cmd: cmd, end: end, within: within}
}

// withoutSecrets is an environment without what a tunnel process is not to know: its
// token comes over the stream.
func withoutSecrets(environ []string) []string {
	secrets := []string{"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CLIENT_ID", "TS_CLIENT_SECRET", "TSNODE_PROXY_AUTH"}
	return slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(secrets, name)
	})
}

// tunnelFlags are the flags that were set, for the process.
func tunnelFlags(flags *pflag.FlagSet) (args []string) {
	flags.Visit(func(f *pflag.Flag) {
		if !managerOnly[f.Name] {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// wait waits for the process, whose stream is closed: it ends by itself, or is
// made to.
func (p *tunnelProcess) wait() error {
	timer := time.AfterFunc(p.within.end, p.end)
	defer timer.Stop()
	defer p.end()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("tunnel process: %w", err)
	}
	return nil
}

// A managerPrinter prints what a tunnel says.
type managerPrinter struct {
	mu   sync.Mutex
	out  io.Writer
	json bool
}

// say prints one thing, as text or as JSON under its kind.
func (p *managerPrinter) say(kind string, v any, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.json {
		fmt.Fprintln(p.out, text)
		return
	}
	json.NewEncoder(p.out).Encode(map[string]any{kind: v})
}

// settings prints the network settings that a front end would apply.
func (p *managerPrinter) settings(_ context.Context, s vpn.NetworkSettings) error {
	text, err := json.Marshal(s)
	p.say("NetworkSettings", s, "network settings: "+string(text))
	return err
}

func (p *managerPrinter) event(e vpn.Event) {
	switch e := e.(type) {
	case vpn.LogLine:
		text := fmt.Sprintf("log: %v %s", e.Level, e.Message)
		for _, f := range e.Fields {
			text += fmt.Sprintf(" %s=%q", f.Name, f.Value)
		}
		p.say("Log", e, text)
	case vpn.Update:
		p.update(e)
	}
}

func (p *managerPrinter) update(u vpn.Update) {
	if p.json {
		p.say("Update", u, "")
		return
	}
	for _, a := range u.DeletedAgents {
		p.say("", nil, "agent gone: "+a.Name)
	}
	for _, w := range u.DeletedWorkspaces {
		p.say("", nil, "workspace gone: "+w.Name)
	}
	for _, w := range u.Workspaces {
		p.say("", nil, fmt.Sprintf("workspace: %s %v", w.Name, w.Status))
	}
	for _, a := range u.Agents {
		p.say("", nil, agentText(a))
	}
}

// agentText is an agent in one line.
func agentText(a vpn.Agent) string {
	text := fmt.Sprintf("agent: %s %v", a.Name, a.Addrs)
	if !a.LastHandshake.IsZero() {
		text += " handshake " + a.LastHandshake.Format(time.TimeOnly)
	}
	if p := a.LastPing; p != nil {
		way := "relayed"
		if p.Direct {
			way = "direct"
		}
		text += fmt.Sprintf(" %s in %v", way, p.Latency.Round(10*time.Microsecond))
	}
	return text
}
