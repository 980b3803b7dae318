package identity

import (
	"context"
	"errors"
	"os"
	"slices"
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
