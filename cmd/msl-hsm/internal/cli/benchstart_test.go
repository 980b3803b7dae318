//go:build linux

package cli

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// mostStartFaults bounds the page faults of a command that does nothing, which do not depend
// on what else the machine does. What packages do before main is most of them: each costs
// every command of every user and test.
const mostStartFaults = 1000

// BenchmarkStart is the cost of a process that prints its version: CPU time, and page faults.
func BenchmarkStart(b *testing.B) {
	var cpu time.Duration
	var faults int64
	for b.Loop() {
		c := exec.Command("msl-hsm", "--version")
		c.Env = append(c.Environ(), "GOMAXPROCS=1")
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
		cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		faults += int64(c.ProcessState.SysUsage().(*syscall.Rusage).Minflt)
	}
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(faults)/float64(b.N), "faults/op")
	if faults/int64(b.N) > mostStartFaults {
		b.Errorf("%d page faults, want at most %d", faults/int64(b.N), mostStartFaults)
	}
}
