package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/seed94491740/tsnode/bench/internal/machine"
)

// A greeting is what a node says once it runs.
type greeting struct {
	URL, AuthKey string // of the far one
	TCP, UDP     string // where it takes what it forwards, or serves
}

// addresses returns where a service is, if there is one.
func (g *greeting) addresses() []string {
	if g.TCP == "" {
		return nil
	}
	return []string{g.TCP, g.UDP}
}

// A process is one of the nodes. It ends with its standard input.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Reader
}

// start runs this program in a role, until ctx ends, and waits for its greeting.
func start(ctx context.Context, args ...string) (*process, greeting, error) {
	var hello greeting
	self, err := os.Executable()
	if err != nil {
		return nil, hello, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, args...)}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, hello, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, hello, err
	}
	p.lines = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, hello, err
	}
	line, err := p.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err != nil {
		p.stop()
		return nil, hello, fmt.Errorf("%s node: %w", args[0], err)
	}
	return p, hello, nil
}

func (p *process) stop() {
	p.stdin.Close()
	p.cmd.Wait()
}

// resident returns the memory of the process in bytes, once it has given back what
// it does not need.
func (p *process) resident() (int64, error) {
	if _, err := io.WriteString(p.stdin, "collect\n"); err != nil {
		return 0, err
	}
	if _, err := p.lines.ReadString('\n'); err != nil {
		return 0, err
	}
	return machine.Resident(p.cmd.Process.Pid)
}

// greet says hello, and then answers each line once it has collected garbage.
func greet(in io.Reader, out io.Writer, hello greeting, collect func()) error {
	if err := json.NewEncoder(out).Encode(hello); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		collect()
		if _, err := fmt.Fprintln(out, "done"); err != nil {
			return err
		}
	}
	return lines.Err()
}
