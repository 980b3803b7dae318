package enroll

import (
	"context"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

func decideOn(t *testing.T, o *office, p proof.Proof) (Decision, error) {
	_, d, err := o.Decide(t.Context(), proof.Encode(p))
	return d, err
}

// TestTogether registers two devices at the same time.
func TestTogether(t *testing.T) {
	f, g := newForger(t), newForger(t)
	for f.id()[0]%64 == g.id()[0]%64 {
		g = newForger(t)
	}
	var both sync.WaitGroup
	both.Add(2)
	o := newOffice(t, accepting(), func(c *Config) {
		c.Register = func(context.Context, Identity) error {
			both.Done()
			both.Wait() // for the other one
			return nil
		}
	})
	var done sync.WaitGroup
	for _, device := range []*forger{f, g} {
		b := device.begin()
		p := device.prove(b, device.ask(o, b))
		done.Go(func() {
			if d, err := decideOn(t, o, p); err != nil || d.State != Enrolled {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	done.Wait()
	if n, err := o.Count(t.Context(), Enrolled); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
}
