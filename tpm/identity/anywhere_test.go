package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// An accident happens after one of the commands of a program, all of which are counted.
type accident struct {
	left   int
	happen func(send func([]byte) ([]byte, error)) error
}

func (a *accident) command(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	answer, err := send(command)
	if a.left--; a.left == 0 {
		err = errors.Join(err, a.happen(send))
	}
	if a.left < 0 && a.happen(nil) != nil {
		return nil, errStop
	}
	return answer, err
}

// kill is the end of the program: no answer comes, nor does another command.
func kill(func([]byte) ([]byte, error)) error { return errStop }

// clearAll is somebody else who clears the TPM, of which the program hears nothing.
func clearAll(send func([]byte) ([]byte, error)) error {
	if send == nil {
		return nil
	}
	answer, err := send(tpmtest.ClearCommand())
	if err == nil && tpmtest.Code(answer) != 0 {
		err = errors.New("TPM2_Clear is refused")
	}
	return err
}

// TestAccidents kills the program, and clears the TPM, after each command by which a device makes
// its keys and enrolls, and by which it enrolls again. What is done after that is what an error
// advises: init, and then enroll.
func TestAccidents(t *testing.T) {
	step := 9 // of the commands, of which MSL_SOAK tries all
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	for name, happen := range map[string]func(func([]byte) ([]byte, error)) error{"kill": kill, "clear": clearAll} {
		for what, known := range map[string]bool{"new": false, "enrolled": true} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				p := tpmtest.Start(t)
				for n := 1; !meet(t, p, accident{n, happen}, known); n += step {
					if n > 500 {
						t.Fatal("it never ends")
					}
				}
			})
		}
	}
}

// meet has a device meet an accident, and reports whether it was done before that.
func meet(t *testing.T, p *tpmtest.TPM, a accident, enrolled bool) (done bool) {
	t.Helper()
	ctx, path, n := context.Background(), newPath(t), a.left
	o := newOffice(t, accepting())
	if enrolled {
		chip := connect(t, p)
		if err := enrolls(ctx, chip, path, o); err != nil {
			t.Fatal(err)
		}
		chip.Close()
	} else {
		p.Clear(t)
	}
	chip, err := tpm.NewDevice(p.Quirky((&a).command), time.Minute)
	if err == nil {
		err = enrolls(ctx, chip, path, o)
		chip.Close()
	}
	done = a.left > 0
	if done && err != nil {
		t.Fatalf("without an accident: %v", err)
	}
	known := []error{errStop, ErrCleared, keystore.ErrForeign, keystore.ErrNotFound, keystore.ErrLost}
	if err != nil && !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
		t.Errorf("after command %d: %v", n, err)
	}
	chip = connect(t, p)
	defer chip.Close()
	if err := enrolls(ctx, chip, path, o); err != nil {
		t.Fatalf("after command %d : %v", n, err)
	}
	checkIdentity(t, openDevice(t, chip, path), o.c.Certificate, defaultName(idOf(t, openDevice(t, chip, path))))
	return done
}

// TestRefusals has the TPM answer one command with a code, or that and all that follow, at each
// command by which a device makes its keys and enrolls: an error says what to do, and the keys
// of a device that is enrolled are not given up for what a TPM answers once.
func TestRefusals(t *testing.T) {
	step := 61 // of the commands, of which MSL_SOAK tries all
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	for name, tt := range map[string]struct {
		code uint32
		ever bool
	}{
		"FAILURE": {0x101, false}, "FAILURE for ever": {0x101, true}, "INITIALIZE": {0x100, false}, "DISABLED": {0x120, false},
		"REBOOT": {0x130, false}, "NV_SPACE": {0x14b, false}, "CONTEXT_GAP": {0x901, false}, "OBJECT_MEMORY": {0x902, false},
		"SESSION_MEMORY": {0x903, false}, "MEMORY": {0x904, false}, "SESSION_HANDLES": {0x905, false}, "OBJECT_HANDLES": {0x906, false},
		"YIELDED": {0x908, false}, "CANCELED": {0x909, false}, "TESTING": {0x90a, false}, "NV_RATE": {0x920, false},
		"LOCKOUT": {0x921, false}, "LOCKOUT for ever": {0x921, true}, "RETRY": {0x922, false}, "NV_UNAVAILABLE": {0x923, false},
		"HIERARCHY": {0x185, false},
	} {
		if step > 1 && !slices.Contains([]string{"FAILURE", "LOCKOUT", "REBOOT"}, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := tpmtest.Start(t)
			o, path := newOffice(t, accepting()), newPath(t)
			chip := connect(t, p)
			if err := enrolls(t.Context(), chip, path, o); err != nil {
				t.Fatal(err)
			}
			before := idOf(t, openDevice(t, chip, path)).String() + keysOf(t, chip, path)
			chip.Close()
			for n, met := 1, true; met; n += step {
				met = false
				left := n
				err := refused(t, p, path, o, func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
					left--
					if left == 0 || left < 0 && tt.ever {
						met = true
						return tpmtest.Refuse(tt.code), nil
					}
					return send(command)
				})
				if err != nil && (strings.HasSuffix(err.Error(), "TPM_RC_"+name) || strings.Contains(err.Error(), "somebody answers")) {
					t.Errorf("command %d: %v", n, err)
				}
				chip := connect(t, p)
				if after := idOf(t, openDevice(t, chip, path)).String() + keysOf(t, chip, path); after != before {
					t.Fatalf("command %d: other keys after %v", n, err)
				}
				chip.Close()
			}
		})
	}
}

func keysOf(t *testing.T, chip *tpm.Device, path string) string {
	d := openDevice(t, chip, path)
	checkError(t, d.Check(), nil)
	return fmt.Sprintf("%x %x", saved(t, d).file.state.AK.Public, saved(t, d).file.state.Keys[0].Public)
}

// refused enrolls a device again whose TPM has a quirk.
func refused(t *testing.T, p *tpmtest.TPM, path string, o *office, quirk tpmtest.Quirk) error {
	t.Helper()
	chip, err := tpm.NewDevice(p.Quirky(quirk), time.Minute)
	if err != nil {
		return err
	}
	defer chip.Close()
	s, err := chip.OpenStore(tpm.StoreConfig{State: path + ".keys"})
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := Open(s, path)
	if err != nil {
		return err
	}
	if err := d.Init(t.Context(), InitOptions{}, nil); err != nil {
		return err
	}
	return d.Enroll(t.Context(), o.exchange, nil)
}

// enrolls does what `tpm init` and `enroll` do.
func enrolls(ctx context.Context, chip *tpm.Device, path string, o *office) error {
	c := tpm.StoreConfig{State: path + ".keys"}
	s, err := chip.OpenStore(c)
	if errors.Is(err, keystore.ErrForeign) || errors.Is(err, os.ErrNotExist) || errors.Is(err, keystore.ErrNotFound) {
		os.Remove(c.State)
		s, err = chip.InitStore(c)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := Open(s, path)
	if err != nil {
		return err
	}
	if err := d.Init(ctx, InitOptions{EK: EKP256}, nil); err != nil {
		return err
	}
	return d.Enroll(ctx, o.exchange, nil)
}
