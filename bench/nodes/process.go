package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/seed94491740/tsnode/bench/load"
)

const (
	answerWait = 15 * time.Minute // for an answer before the process is killed
	stopWait   = 5 * time.Second  // for the end of a process before it is killed
)

// A process is one that we have started at a site. It ends with its standard
// input.
type process struct {
	name   string
	cmd    *exec.Cmd
	in     io.Closer
	client *load.Client
}

// start starts a program at a site, which inherits files; when ctx ends it is
// killed.
func (f *field) start(ctx context.Context, at site, files []*os.File, path string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, files
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := at.start(cmd); err != nil {
		return nil, err
	}
	return &process{at.name, cmd, in, load.NewClient(in, out)}, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ask has the process do something and waits for what it says.
func (p *process) ask(do string, with, is any) error {
	hang := time.AfterFunc(answerWait, func() { p.cmd.Process.Kill() })
	defer hang.Stop()
	if err := p.client.Ask(do, with, is); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// stop ends the process in good order, or else.
func (p *process) stop() {
	p.in.Close()
	kill := time.AfterFunc(stopWait, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	p.cmd.Wait()
}
