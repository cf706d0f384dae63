package peer

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"time"
)

// callWait bounds every call of a process: more than it waits for anything
// itself.
const callWait = upWait + 15*time.Second

// A Host is where a process can be started, such as a network namespace.
type Host interface{ Start(*exec.Cmd) error }

// A Process is a node in a process of its own, on its tailnet. Its methods may
// be called from any goroutine.
type Process struct {
	Name string
	Kind Kind
	IP   netip.Addr // IPv4, on the tailnet

	cmd    *exec.Cmd
	client *rpc.Client
}

// Start starts a node on a host and waits until it is on its tailnet. stderr
// takes its log.
func Start(on Host, o Options, stderr io.Writer) (*Process, error) {
	p := &Process{Name: o.Name, Kind: o.Kind}
	if err := p.launch(on, stderr); err != nil {
		return nil, fmt.Errorf("start node %s: %w", o.Name, err)
	}
	if err := p.call("Up", o, &p.IP); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// launch runs this program again, where Main takes over.
func (p *Process) launch(on Host, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirIn.Close()
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		ourOut.Close()
		return err
	}
	defer theirOut.Close()
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), variable+"="+p.Name)
	p.cmd.ExtraFiles = []*os.File{theirIn, theirOut} // requestFD and responseFD
	p.cmd.Stderr = stderr
	if err := on.Start(p.cmd); err != nil {
		ourIn.Close()
		ourOut.Close()
		return err
	}
	p.client = rpc.NewClient(both{ourIn, ourOut})
	return nil
}

// both are a connection in two files.
type both struct {
	io.ReadCloser
	out *os.File
}

func (b both) Write(p []byte) (int, error) { return b.out.Write(p) }
func (b both) Close() error                { return errors.Join(b.ReadCloser.Close(), b.out.Close()) }

// call asks the process.
func (p *Process) call(method string, args, reply any) error {
	c := p.client.Go(serviceName+"."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error != nil {
			return fmt.Errorf("%s: %s: %w", p.Name, method, c.Error)
		}
		return nil
	case <-time.After(callWait):
		return fmt.Errorf("%s: %s: no answer in %v", p.Name, method, callWait)
	}
}

// Await waits until the node knows another, and how to reach it.
func (p *Process) Await(other *Process) error { return p.call("Await", other.IP, new(bool)) }

// Peer returns what the node knows of another.
func (p *Process) Peer(other *Process) (info Peer, err error) {
	err = p.call("Peer", other.IP, &info)
	return info, err
}

// Ping pings another node once, with a kind such as PingDisco.
func (p *Process) Ping(other *Process, kind string) (pong Pong, err error) {
	err = p.call("Ping", PingOptions{other.IP, kind}, &pong)
	return pong, err
}

// Watch follows the path to another node from the first call on. It returns the
// path at that time and its changes since.
func (p *Process) Watch(other *Process) (changes []PathChange, err error) {
	err = p.call("Watch", other.IP, &changes)
	return changes, err
}

// StartFlow sends one UDP datagram each interval to another node's echo, until
// StopFlow with the number it returns.
func (p *Process) StartFlow(to *Process, every time.Duration) (number uint64, err error) {
	err = p.call("StartFlow", FlowOptions{to.IP, every}, &number)
	return number, err
}

// StopFlow ends a flow and tells what became of its datagrams.
func (p *Process) StopFlow(number uint64, to *Process) (f Flow, err error) {
	if err := p.call("StopFlow", number, &f); err != nil {
		return f, err
	}
	err = to.call("Arrivals", number, &f.There)
	return f, err
}

// StartStream sends random bytes at a steady rate over TCP to another node's
// echo, until StopStream with the number it returns.
func (p *Process) StartStream(to *Process) (number uint64, err error) {
	err = p.call("StartStream", to.IP, &number)
	return number, err
}

// StopStream ends a stream. It fails unless every byte came back as it was sent.
func (p *Process) StopStream(number uint64) (s Stream, err error) {
	err = p.call("StopStream", number, &s)
	return s, err
}

// Close closes the node in good order, and ends the process.
func (p *Process) Close() error {
	err := p.call("Close", true, new(bool))
	p.client.Close()
	return errors.Join(err, p.cmd.Wait())
}

// Kill ends the process at once, as a crash does. It may be called after Close.
func (p *Process) Kill() {
	p.client.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
