//go:build race

package cli

const raceDetector = true

// raced are the scripts that run with the race detector: servers and agents that do
// several things at the same time. Each of them is a process, and those of other scripts
// do nothing else at the same time.
func raced() []string {
	return []string{"agent", "gateway", "http", "isolated", "live", "observe", "peers", "reload"}
}
