package relayd

import (
	"fmt"
	"math"
	"os"

	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A rateConfig is the file with the receive limit per client (DERP-64).
type rateConfig struct {
	PerClientRateLimitBytesPerSec int64
	PerClientRateBurstBytes       int64
}

// maxRate keeps a limit in what a token bucket can count, in bytes per second:
// far above what one client sends.
const maxRate = math.MaxInt32

// readRateConfig reads a file; a rate of 0 is no limit.
func readRateConfig(name string) (relay.RateLimit, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return relay.RateLimit{}, err
	}
	var c rateConfig
	if err := parseHuJSON(b, &c); err != nil {
		return relay.RateLimit{}, fmt.Errorf("%s: %w", name, err)
	}
	rate, burst := c.PerClientRateLimitBytesPerSec, c.PerClientRateBurstBytes
	if rate < 0 || burst < 0 || rate > maxRate || burst > maxRate {
		return relay.RateLimit{}, fmt.Errorf("%s: the rate of %d bytes per second and the burst of %d bytes must be between 0 and %d", name, rate, burst, maxRate)
	}
	if rate == 0 {
		return relay.RateLimit{}, nil
	}
	return relay.RateLimit{BytesPerSecond: int(rate), Burst: int(burst)}, nil
}
