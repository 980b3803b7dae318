package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Results are the rounds of a run, each with its values by side and name.
type results []map[string]float64

// read reads the lines that scripts/bench writes.
func read(in io.Reader) (results, error) {
	var all results
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) != 4 {
			return nil, fmt.Errorf("line %d is not \"round side name value\": %q", n, lines.Text())
		}
		round, err := strconv.Atoi(fields[0])
		if err != nil || round < 1 || round > len(all)+1 {
			return nil, fmt.Errorf("line %d: round %q does not follow round %d", n, fields[0], len(all))
		}
		value, err := strconv.ParseFloat(fields[3], 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return nil, fmt.Errorf("line %d: %q is not a number", n, fields[3])
		}
		if round > len(all) {
			all = append(all, map[string]float64{})
		}
		all[round-1][fields[1]+" "+fields[2]] = value
	}
	return all, lines.Err()
}

// A figure is what a name stands for in one round, and whether that round has it.
type figure func(round map[string]float64) (value float64, ok bool)

// the is one value.
func the(key string) figure {
	return func(round map[string]float64) (float64, bool) {
		v, ok := round[key]
		return v, ok
	}
}

// best is the highest of those that there are.
func best(keys ...string) figure {
	return func(round map[string]float64) (top float64, ok bool) {
		for _, key := range keys {
			if v, there := round[key]; there && (!ok || v > top) {
				top, ok = v, true
			}
		}
		return top, ok
	}
}

// ratio is one figure divided by another one of the same round, which counts on a machine
// whose speed changes.
func ratio(a, b figure) figure {
	return func(round map[string]float64) (float64, bool) {
		x, there := a(round)
		y, ok := b(round)
		if !there || !ok || y == 0 {
			return 0, false
		}
		return x / y, true
	}
}

// of returns a figure in each round that has it, in order of size.
func (r results) of(f figure) []float64 {
	var all []float64
	for _, round := range r {
		if v, ok := f(round); ok {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return all
}

// median is that of a sorted list, which is not empty.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
