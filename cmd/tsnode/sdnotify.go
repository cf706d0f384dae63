package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// A notifier tells systemd how the process fares (sd_notify(3)). The zero value
// tells nobody.
type notifier struct{ conn net.Conn }

// dialNotifier returns a notifier to the socket that the environment names. Without
// one that answers systemd never hears that the process is ready, so it is told.
func dialNotifier(ctx context.Context, network host.Network, log *slog.Logger) notifier {
	path := os.Getenv("NOTIFY_SOCKET") // a path, or @ and the name of an abstract socket
	if path == "" {
		return notifier{}
	}
	c, err := network.Dial(ctx, "unixgram", path)
	if err != nil {
		log.Warn("systemd cannot be told how this process fares", "NOTIFY_SOCKET", path, "err", err)
		return notifier{}
	}
	return notifier{c}
}

func (n notifier) close() {
	if n.conn != nil {
		n.conn.Close()
	}
}

// Messages to systemd.
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
	notifyWatchdog = "WATCHDOG=1"
)

// tell sends a message; what systemd does not take is its own loss.
func (n notifier) tell(message string) {
	if n.conn != nil {
		n.conn.Write([]byte(message))
	}
}

// watchdogPeriod returns how often systemd wants to hear of this process, by the
// environment (sd_watchdog_enabled(3)): twice in the time it waits. 0: never.
func watchdogPeriod(usec, pid string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(n) * time.Microsecond / 2
}

// watchdog tells systemd each period that the node's loops turn, as far as alive
// knows, until ctx ends. What it is not told of it ends.
func (n notifier) watchdog(ctx context.Context, period time.Duration, alive func(context.Context) error) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if alive(ctx) == nil {
				n.tell(notifyWatchdog)
			}
		}
	}
}
