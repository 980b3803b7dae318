//go:build race

package cli

const raceDetector = true

// raced are the scripts that run with the race detector: servers and agents that do
// several things at the same time.
func raced() []string {
	return []string{"agent", "audit", "deadline", "etcd", "gateway", "http", "isolated", "live", "observe", "peers", "random", "reload", "rotate", "tour"}
}
