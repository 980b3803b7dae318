//go:build cgo

package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

// Every sequence of calls that floor.c measures is the floor of some row.
func TestFloorsHaveRows(t *testing.T) {
	token := softhsm.Temp(t)
	program := filepath.Join(t.TempDir(), "floor")
	if out, err := exec.Command("cc", "-Wall", "-Werror", "-o", program, "../floor.c", "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var failure bytes.Buffer
	measure := exec.Command(program, token.Module, "0.001")
	measure.Stderr = &failure
	out, err := measure.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &failure)
	}
	for _, text := range strings.Split(strings.TrimSpace(string(out)), "\n") {
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
