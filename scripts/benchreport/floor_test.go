//go:build cgo

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

// build makes the program that runs floor.c.
func build(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "floor")
	if out, err := exec.Command("cc", "-Wall", "-Werror", "-o", program, "../floor.c", "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// output runs a command that is to work, with that input.
func output(t *testing.T, in string, name string, args ...string) []string {
	var failure bytes.Buffer
	c := exec.Command(name, args...)
	c.Stdin, c.Stderr = strings.NewReader(in), &failure
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &failure)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// Every rate that floor.c measures is the floor of some row.
func TestFloorsHaveRows(t *testing.T) {
	token := softhsm.Temp(t)
	for _, text := range output(t, "", build(t), token.Module, "0.001") {
		fields := strings.Fields(text)
		if len(fields) != 3 {
			t.Fatalf("%q is not a name, threads and a rate", text)
		}
		key, used := "floor "+fields[0]+"/"+fields[1], false
		for _, l := range table() {
			if _, ok := l.figure(map[string]float64{key: 1}); ok {
				used = true
			}
		}
		if !used {
			t.Errorf("no row uses %q", key)
		}
	}
}

// floor.c has a sequence for every row that takes turns with one, and says how often it ran,
// and for how long.
func TestTurns(t *testing.T) {
	token := softhsm.Temp(t)
	names := []string{"echo", "PSK", "RSA", "hmac", "encrypt", "decrypt", "sign", "generate", "unseal"}
	lines := output(t, strings.Join(names, "\n")+"\n", build(t), token.Module)
	if len(lines) != len(names) {
		t.Fatalf("%d turns for %d names: %q", len(lines), len(names), lines)
	}
	for i, name := range names {
		var runs, took int
		if _, err := fmt.Sscanf(lines[i], "%d %d", &runs, &took); err != nil || runs < 1 || took < 20_000_000 {
			t.Errorf("%s: %q: %v", name, lines[i], err)
		}
		used := false
		for _, side := range []string{"stack ServerAlone/", "hsm Floor/"} {
			for _, l := range table() {
				_, ok := l.figure(map[string]float64{side + name + "/2cpu:of-floor": 1})
				used = used || ok
			}
		}
		if !used {
			t.Errorf("no row uses %s", name)
		}
	}
}
