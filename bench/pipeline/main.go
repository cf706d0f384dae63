// Command pipeline measures the packet pipeline alone: netstack, dataplane and
// the WireGuard engine in two processes joined by plain UDP on loopback, without
// control server, relay or path discovery.
//
//	cd bench && go run ./pipeline
//
// It prints throughput, CPU seconds per GB of both ends together, resident
// memory of each end, and the CPU cost of sealing and opening alone, measured
// in the same run.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// maxRatio is the most that the pipeline may cost, as a multiple of sealing
// plus opening alone.
const maxRatio = 3.2

// maxResident is the most that one end may keep resident, in bytes.
const maxResident = 40 << 20

func main() {
	role := flag.String("role", "", "internal: the end to be, server or client")
	port := flag.Int("port", 41700, "first of two UDP ports on loopback")
	seconds := flag.Duration("time", 4*time.Second, "length of each round")
	rounds := flag.Int("rounds", 3, "rounds; the median is shown")
	streams := flag.Int("streams", 1, "TCP streams at once")
	check := flag.Bool("check", false, fmt.Sprintf("fail beyond %.1f times the cipher's cost or %d MB resident", maxRatio, maxResident>>20))
	flag.Parse()
	var err error
	if *role != "" {
		err = runEnd(*role, *port, *seconds, *streams)
	} else {
		err = run(*port, *seconds, *rounds, *streams, *check)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}

// A report is what one end measured.
type report struct {
	Bytes    int64   // of payload
	Seconds  float64 // wall clock of the transfer
	CPU      float64 // seconds of user and system time during it
	Resident int64   // peak resident bytes of the process
}

// A round is one transfer.
type round struct {
	Mbit, CPUPerGB float64
	Server, Client int64 // resident
	Ratio          float64
}

func run(port int, length time.Duration, rounds, streams int, check bool) error {
	var all []round
	for i := range rounds {
		r, err := oneRound(port+2*i, length, streams)
		if err != nil {
			return err
		}
		all = append(all, r)
		fmt.Printf("round %d: %.0f Mbit/s, %.2f CPU s/GB, %.2f x cipher, resident %d MB (server) %d MB (client)\n",
			i+1, r.Mbit, r.CPUPerGB, r.Ratio, r.Server>>20, r.Client>>20)
	}
	slices.SortFunc(all, func(a, b round) int { return int(1e6 * (a.Ratio - b.Ratio)) })
	m := all[len(all)/2]
	fmt.Printf("median:  %.0f Mbit/s, %.2f CPU s/GB, %.2f x cipher\n", m.Mbit, m.CPUPerGB, m.Ratio)
	if check && (m.Ratio > maxRatio || max(m.Server, m.Client) > maxResident) {
		return fmt.Errorf("beyond the bounds of %.1f x cipher and %d MB resident", maxRatio, maxResident>>20)
	}
	return nil
}

// oneRound runs both ends as processes of their own, then the cipher alone.
func oneRound(port int, length time.Duration, streams int) (r round, err error) {
	server, err := startEnd("server", port, length, streams)
	if err != nil {
		return r, err
	}
	client, err := startEnd("client", port, length, streams)
	if err != nil {
		server.cmd.Process.Kill()
		server.cmd.Wait()
		return r, err
	}
	c, err := client.report()
	if err != nil {
		server.cmd.Process.Kill()
	}
	s, err2 := server.report()
	if err = firstOf(client.finish(), server.finish(), err, err2); err != nil {
		return r, err
	}
	gb := float64(s.Bytes) / 1e9
	r = round{
		Mbit:     float64(s.Bytes) * 8 / 1e6 / s.Seconds,
		CPUPerGB: (s.CPU + c.CPU) / gb,
		Server:   s.Resident, Client: c.Resident,
	}
	r.Ratio = r.CPUPerGB / cipherPerGB()
	return r, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// An end is a child process.
type end struct {
	cmd *exec.Cmd
	in  io.Closer // closed when the end may go
	out *json.Decoder
}

func startEnd(role string, port int, length time.Duration, streams int) (*end, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "-role", role, "-port", fmt.Sprint(port), "-time", length.String(), "-streams", fmt.Sprint(streams))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &end{cmd, in, json.NewDecoder(out)}, cmd.Start()
}

// report waits for what the end has measured.
func (e *end) report() (r report, err error) {
	err = e.out.Decode(&r)
	return r, err
}

// finish lets the end go and waits for it.
func (e *end) finish() error {
	e.in.Close()
	return e.cmd.Wait()
}
