// Package floortest compares, in benchmarks, what uses a PKCS #11 module with the same calls
// of scripts/floor.c, which have nothing around them. Both take turns of some milliseconds:
// a machine that others use, or whose processors share a core, changes its speed from one
// second to the next by more than what is compared.
package floortest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// turns is how often each side has its turn. A turn of the floor takes 20 ms.
const turns = 40

// A Floor is a process that runs the sequences of scripts/floor.c.
type Floor struct {
	in  io.Writer
	out *bufio.Reader
}

// Start starts the program that $MSL_FLOOR names, which ends with b. Without one it skips b:
// scripts/bench builds the program.
func Start(b *testing.B) *Floor {
	b.Helper()
	program := os.Getenv("MSL_FLOOR")
	if program == "" {
		b.Skip("MSL_FLOOR names no program that runs scripts/floor.c, see scripts/bench")
	}
	c := exec.Command(program)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		c.Wait()
	})
	return &Floor{in, bufio.NewReader(out)}
}

// turn runs a sequence for a turn.
func (f *Floor) turn(b *testing.B, sequence string) (runs int, took time.Duration) {
	b.Helper()
	fmt.Fprintln(f.in, sequence)
	if _, err := fmt.Fscanln(f.out, &runs, &took); err != nil {
		b.Fatalf("the floor %s: %v", sequence, err)
	}
	return runs, took
}

// Compare lets run, which returns how long it took, do the same as often as the floor ran
// its sequence, turn by turn. It reports both rates and the ratio, each the median of the
// turns. Once is enough: -benchtime 1x.
func (f *Floor) Compare(b *testing.B, sequence string, run func(n int) time.Duration) {
	for b.Loop() {
		var floor, own, ratio []float64
		for range turns {
			n, took := f.turn(b, sequence)
			mine := run(n)
			floor = append(floor, float64(n)/took.Seconds())
			own = append(own, float64(n)/mine.Seconds())
			ratio = append(ratio, float64(took)/float64(mine))
		}
		b.ReportMetric(median(own), "own/s")
		b.ReportMetric(median(floor), "floor/s")
		b.ReportMetric(median(ratio), "of-floor")
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
