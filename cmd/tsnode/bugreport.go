package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/localapi"
)

// endpointBugReport is what of a bug report only the process of the node knows.
const endpointBugReport = "bugreport"

// maxBugReport bounds each part of a bug report, in bytes.
const maxBugReport = 4 << 20

// bugReportOptions are the flags of tsnode bugreport.
type bugReportOptions struct {
	socketFlags
	file string
}

func newBugReport() *cobra.Command {
	var o bugReportOptions
	cmd := &cobra.Command{
		Use:   "bugreport",
		Short: "Write what helps to find a fault to a file",
		Long: `Write a report on the running node to a file: status, preferences, settings,
forwards, metrics, goroutines and the last lines of the log. It is a text that you
can read, and should, before you give it to anybody: keys, passwords and login URLs
are left out, but names and addresses of the tailnet's nodes are in it. Nothing is
sent anywhere.

` + asksRunning,
		Example: `  tsnode bugreport
  tsnode bugreport --file report.txt --socket /run/tsnode/tsnode.sock
  kubectl exec mypod -c tsnode -- tsnode bugreport --file - >report.txt`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.add(cmd, false)
	cmd.Flags().StringVar(&o.file, "file", "", "file to write, - for standard output (default: tsnode-bugreport-TIME.txt, here)")
	return cmd
}

// run asks the running node, and writes the file.
func (o *bugReportOptions) run(ctx context.Context, stdout io.Writer) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var known redactor
	known.knowLogin(status.AuthURL)
	text := known.redact(reportFrom(ctx, c))
	path := o.file
	if path == "-" {
		_, err := io.WriteString(stdout, text)
		return err
	}
	if path == "" {
		path = "tsnode-bugreport-" + time.Now().UTC().Format("20060102T150405Z") + ".txt"
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("bug report: %w", err)
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return fmt.Errorf("bug report: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("bug report: %w", err)
	}
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	_, err = fmt.Fprintln(stdout, path)
	return err
}

// reportParts are what a node is asked for a bug report.
var reportParts = []struct{ title, endpoint string }{
	{"the process", "tsnode/" + endpointBugReport},
	{"status", "status"},
	{"preferences", "prefs"},
	{"names", "tsnode/" + endpointDNSStatus},
	{"relays", "derpmap"},
	{"metrics", "metrics"},
	{"goroutines", "goroutines"},
}

// reportFrom returns a bug report that may have secrets in it. What cannot be had is
// told in its place.
func reportFrom(ctx context.Context, c *localapi.Client) string {
	var b strings.Builder
	fmt.Fprintf(&b, "tsnode bug report of %s\n", time.Now().UTC().Format(time.RFC3339))
	for _, p := range reportParts {
		text, err := part(ctx, c, p.endpoint)
		if err != nil {
			text = "not available: " + err.Error()
		}
		fmt.Fprintf(&b, "\n==== %s\n%s\n", p.title, strings.TrimRight(text, "\n"))
	}
	return b.String()
}

// part returns a part of a bug report, and says where it was too long.
func part(ctx context.Context, c *localapi.Client, endpoint string) (string, error) {
	body, err := c.Stream(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxBugReport+1))
	if len(text) > maxBugReport {
		return fmt.Sprintf("%s\n(cut off here: more than %d bytes)", text[:maxBugReport], maxBugReport), err
	}
	return string(text), err
}

// bugReport is what the process of the node knows: its version, settings, forwards,
// memory and the last lines of its log, without secrets.
func (f *foreground) bugReport() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tsnode %s, %s, %s/%s, %d CPUs\n", version.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(&b, "%d bytes of memory in use, %d from the system, %d goroutines\n", m.HeapInuse, m.Sys, runtime.NumGoroutine())
	b.WriteString("\nsettings that something has set:\n")
	for _, s := range f.settings.Get().Said() {
		if s.Secret {
			fmt.Fprintf(&b, "  %s is not shown   (%s)\n", s.Name, s.From)
			continue
		}
		fmt.Fprintf(&b, "  %s = %s   (%s)\n", s.Name, s.Value, s.From)
	}
	b.WriteString("\nforwards:\n")
	e := json.NewEncoder(&b)
	if set := f.forwards.Load(); set != nil {
		for _, s := range set.List() {
			e.Encode(s)
		}
	}
	b.WriteString("\nlast lines of the log:\n")
	for _, line := range f.ring.last() {
		b.WriteString(line)
	}
	f.secrets.knowLogin(f.node.Status().AuthURL)
	return f.secrets.redact(b.String())
}
