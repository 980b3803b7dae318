package cli

import "testing"

// The parts that only a shell asks for, for each flag of each verb, are four fifths of the work.
func TestCheapStart(t *testing.T) {
	if allocations := testing.AllocsPerRun(1, func() { rootCommand(&program{defaults: cheap}) }); allocations > 4000 {
		t.Errorf("every start of the command allocates %v times before it does anything", allocations)
	}
}
