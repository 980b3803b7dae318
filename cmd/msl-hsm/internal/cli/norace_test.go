//go:build !race

package cli

const raceDetector = false

// raced are none: all scripts run.
func raced() []string { return nil }
