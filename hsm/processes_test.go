package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestRotator is one of the processes of TestProcesses: it makes versions of a key
// and prints what each computes.
func TestRotator(t *testing.T) {
	uri, rounds := os.Getenv("HSM_TEST_ROTATOR"), os.Getenv("HSM_TEST_ROUNDS")
	if uri == "" {
		t.Skip("started by TestProcesses")
	}
	n, err := strconv.Atoi(rounds)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s, err := hsm.Open(hsm.Config{URI: uri, PIN: hsm.PINSource(os.Getenv("HSM_TEST_PIN"))})
		if err != nil {
			fmt.Printf("failed open: %v\n", err)
			continue
		}
		for _, label := range []string{"shared", "round-" + strconv.Itoa(i)} {
			v, err := s.Create(label, keystore.HMACSHA256)
			if err != nil {
				fmt.Printf("failed create: %v\n", err)
				continue
			}
			tag, err := v.Key.(keystore.MAC).Sum([]byte(label))
			fmt.Printf("announced %s %d %x %v\n", label, v.Number, tag, err)
		}
		if err := s.Close(); err != nil {
			fmt.Printf("failed close: %v\n", err)
		}
	}
}

// TestProcesses has processes make versions of the same keys at the same time.
// Each version that one of them announced is there afterwards, and is its key.
func TestProcesses(t *testing.T) {
	s, token := newStore(t)
	rounds := "5"
	if soak() {
		rounds = "50"
	}
	var outputs [4]bytes.Buffer
	var processes []*exec.Cmd
	for i := range outputs {
		c := exec.Command(os.Args[0], "-test.run", "^TestRotator$")
		c.Env = append(os.Environ(), "HSM_TEST_ROTATOR="+token.URI, "HSM_TEST_PIN="+string(token.PIN), "HSM_TEST_ROUNDS="+rounds, "SOFTHSM2_CONF="+token.Config)
		c.Stdout = &outputs[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		processes = append(processes, c)
	}
	announced, failed := map[string]string{}, 0
	for i, c := range processes {
		if err := c.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outputs[i].String())
		}
		for line := range strings.Lines(outputs[i].String()) {
			word := strings.Fields(line)
			switch {
			case len(word) > 4 && word[0] == "announced":
				key := word[1] + " " + word[2]
				if was, twice := announced[key]; twice {
					t.Errorf("%s was announced twice: %s and %s", key, was, word[3])
				}
				announced[key] = word[3]
			case strings.HasPrefix(line, "failed"):
				failed++
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	t.Logf("%d versions announced, %d failures", len(announced), failed)
	if len(announced) < 4 || failed > len(announced)/4 {
		t.Errorf("%d versions announced, and %d failures", len(announced), failed)
	}
	for key, tag := range announced {
		if err := computes(s, key, tag); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// computes checks that a key exists and is the one that its maker had.
func computes(s *hsm.Store, key, tag string) error {
	label, number, _ := strings.Cut(key, " ")
	all, err := s.Lookup(label)
	if err != nil {
		return err
	}
	for _, v := range all {
		if fmt.Sprint(v.Number) != number {
			continue
		}
		got, err := v.Key.(keystore.MAC).Sum([]byte(label))
		if err == nil && fmt.Sprintf("%x", got) != tag {
			err = errors.New("it is another key")
		}
		return err
	}
	return fmt.Errorf("it is not there, of %d versions", len(all))
}
