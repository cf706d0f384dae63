package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/host"
)

// maxHealthAnswer bounds the answer that is read, in bytes.
const maxHealthAnswer = 1 << 10

// healthOptions are the flags of tsnode healthcheck.
type healthOptions struct {
	addr    string
	ready   bool
	timeout time.Duration
}

func newHealthcheck() *cobra.Command {
	var o healthOptions
	cmd := &cobra.Command{
		Use:   "healthcheck [flags]",
		Short: "Ask the node of this container whether it is well",
		Long: `Ask the node of this container whether it is well, for images that have no shell
and no other program: exit with 0 if it is, else with 1 and a line that says why.

By default it asks /livez: do the node's loops turn, that is, would a new start help
if they do not? --ready asks /readyz: is the node on its tailnet, and connected to a
relay or to a peer?

It asks where 'tsnode run --health' of the same environment listens: TSNODE_HEALTH,
TS_HEALTHCHECK_ADDR_PORT, TS_LOCAL_ADDR_PORT or the configuration file, else port
` + defaultHealthPort + ` of this machine.`,
		Example: `  HEALTHCHECK CMD ["/tsnode", "healthcheck"]
  tsnode healthcheck --ready --addr 127.0.0.1:9002`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "", "[IP]:port that the node's --health has")
	f.BoolVar(&o.ready, "ready", false, "ask whether the node is ready, not only alive")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}

// run asks, and prints the answer if all is well.
func (o *healthOptions) run(ctx context.Context, stdout io.Writer) error {
	addr := o.addr
	if addr == "" {
		var err error
		if addr, err = healthAddress(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	text, err := askHealth(ctx, addr, o.path())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, text)
	return err
}

func (o *healthOptions) path() string {
	if o.ready {
		return "/readyz"
	}
	return "/livez"
}

// defaultHealthPort is that of TS_LOCAL_ADDR_PORT.
const defaultHealthPort = "9002"

// healthAddress returns where the node that has the same environment listens.
func healthAddress() (string, error) {
	c := configuration{flags: pflag.NewFlagSet("", pflag.ContinueOnError)}
	s, err := c.read()
	if err != nil {
		return "", fmt.Errorf("where the node listens is not known, name it with --addr: %v", err) // no usageError: Docker wants 0 or 1
	}
	return cmp.Or(s.Health, os.Getenv("TS_LOCAL_ADDR_PORT"), ":"+defaultHealthPort), nil
}

// askHealth asks an endpoint of a node, and returns its answer; the error has it if
// it is a bad one.
func askHealth(ctx context.Context, addr, path string) (string, error) {
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return host.OS{}.Dial(ctx, "tcp", addr) },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := t.RoundTrip(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", fmt.Errorf("nothing listens on %s: start the node with --health %s, or name another place with --addr", addr, addr)
	case err != nil:
		return "", fmt.Errorf("no answer from %s: %w", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthAnswer))
	if err != nil {
		return "", fmt.Errorf("no whole answer from %s: %w", addr, err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s says %d: %s", path, resp.StatusCode, text)
	}
	return text, nil
}
