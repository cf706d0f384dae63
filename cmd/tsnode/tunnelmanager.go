package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/vpn"
)

// killAfter is how long a tunnel process that was told to end may take before it
// is killed (vpn-tunnel.md section 7.3).
const killAfter = 5 * time.Second

// managerOnly are the flags that a tunnel process is not given.
var managerOnly = map[string]bool{
	"manager": true, "json": true, "fd": true, "read-fd": true, "write-fd": true,
	"tun": true, "tunnel-netns": true, "tunnel-user": true,
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
	defer func() { err = errors.Join(err, device.close()) }() // after the process has ended
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
	if err == nil {
		start := vpn.StartOptions{ControlURL: s.LoginServer, Token: token, Descriptor: process.descriptor}
		err = errors.Join(drive(ctx, m, p, start), m.Close())
	}
	return errors.Join(err, process.wait())
}

// drive starts the tunnel, waits until ctx ends or the tunnel does, and stops it.
func drive(ctx context.Context, m *vpn.Manager, p *managerPrinter, start vpn.StartOptions) error {
	if err := m.Start(ctx, start); err != nil {
		return errors.Join(err, m.Stop(context.WithoutCancel(ctx)))
	}
	p.say("Started", m.Version(), fmt.Sprintf("the tunnel is up, protocol %v", m.Version()))
	select {
	case <-ctx.Done():
		return m.Stop(context.WithoutCancel(ctx))
	case <-m.Done():
		return errors.Join(errors.New("the tunnel has ended by itself"), m.Err())
	}
}

// A tunnelProcess is a tunnel that runs as a process.
type tunnelProcess struct {
	cmd        *exec.Cmd
	stop       context.CancelFunc // asks it to end, and kills it when it does not
	descriptor int                // of the device in it; 0: none
}

// startTunnel starts a tunnel process with the flags that were set; the stream is
// its standard input and output.
func (o *tunnelOptions) startTunnel(ctx context.Context, device *managedDevice, stderr io.Writer) (*tunnelProcess, vpn.Stream, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends when it is told to, over the stream
	cmd := exec.CommandContext(ctx, self, append([]string{"tunnel"}, tunnelFlags(o.flags)...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr, cmd.WaitDelay = stderr, killAfter
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	detach(cmd)
	descriptor := device.passTo(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		stop()
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
		stop()
		return nil, nil, fmt.Errorf("start a tunnel process: %w", err)
	}
	return &tunnelProcess{cmd, stop, descriptor}, vpn.Pair(out, in), nil
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
	timer := time.AfterFunc(killAfter, p.stop)
	defer timer.Stop()
	defer p.stop()
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
