package hsmtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Fault is something that goes wrong with some calls. The first fields say
// with which; the rest what, and at least one of those must be set.
type Fault struct {
	// Function is the C_ name; "" or "*" is every function.
	Function string
	// Attribute, if not empty, limits the fault to calls with a template that
	// names one of these CKA_ types.
	Attribute []uint
	// Mechanism, if not empty, limits it to calls that name one of these CKM_
	// types, or go on with an operation that began with one: C_Sign after
	// C_SignInit.
	Mechanism []uint
	// Skip calls that it is for pass first.
	Skip int
	// Times is how many calls it then hits; 0 is every one.
	Times int
	// For is how long it lasts from its first hit; 0 is for ever.
	For time.Duration
	// UntilFinalize ends it, in each process for itself, with the first
	// C_Finalize after it has hit a call of that process.
	UntilFinalize bool

	// After lets the real call be made first, so that its effect stays.
	After bool
	// Code is answered, a CKR_ value.
	Code uint
	// Succeed answers CKR_OK, which Code cannot say. Without After nothing was
	// done, and nothing is written to what the caller passed.
	Succeed bool
	// Delay holds the call up. It comes before a Code of the same fault.
	Delay time.Duration
	// Hang holds it up until the faults are replaced.
	Hang bool
	// Crash ends the process with SIGSEGV.
	Crash bool
	// Abort ends it with SIGABRT.
	Abort bool
}

// functions lists the names of PKCS #11 v2.40 in the order of its function list,
// as the source of the module does.
func functions() []string {
	header, err := source.ReadFile("module/cryptoki.h")
	if err != nil {
		panic(err) // it is part of the program
	}
	var names []string
	for _, m := range regexp.MustCompile(`X\(list, (\w+), `).FindAllSubmatch(header, -1) {
		names = append(names, "C_"+string(m[1]))
	}
	return names
}

// line writes the fault as a line of the control file.
func (f Fault) line() (string, error) {
	function := f.Function
	if function == "" {
		function = "*"
	}
	if function != "*" && !slices.Contains(functions(), function) {
		return "", fmt.Errorf("hsmtest: %q is not a function of PKCS #11 v2.40", f.Function)
	}
	if f.Skip < 0 || f.Times < 0 || f.For < 0 || f.Delay < 0 {
		return "", fmt.Errorf("hsmtest: a fault of %s has a negative number", function)
	}
	what := f.what()
	if len(what) == 0 {
		return "", fmt.Errorf("hsmtest: a fault of %s does nothing: set Code, Delay, Hang or another", function)
	}
	return strings.Join(slices.Concat([]string{function}, f.which(), what), " "), nil
}

// which writes the words that say which calls are hit.
func (f Fault) which() []string {
	var w words
	w.add(len(f.Attribute) > 0, "attribute="+list(f.Attribute))
	w.add(len(f.Mechanism) > 0, "mechanism="+list(f.Mechanism))
	w.add(f.Skip > 0, fmt.Sprintf("skip=%d", f.Skip))
	w.add(f.Times > 0, fmt.Sprintf("times=%d", f.Times))
	w.add(f.For > 0, "for="+duration(f.For))
	w.add(f.UntilFinalize, "until-finalize")
	w.add(f.After, "after")
	return w
}

// what writes the words that say what happens to them.
func (f Fault) what() []string {
	var w words
	w.add(f.Code != 0, fmt.Sprintf("code=%#x", f.Code))
	w.add(f.Succeed, "code=CKR_OK")
	w.add(f.Delay > 0, "delay="+duration(f.Delay))
	w.add(f.Hang, "hang")
	w.add(f.Crash, "crash=segv")
	w.add(f.Abort, "crash=abort")
	return w
}

type words []string

func (w *words) add(yes bool, word string) {
	if yes {
		*w = append(*w, word)
	}
}

func list(numbers []uint) string {
	var w []string
	for _, n := range numbers {
		w = append(w, fmt.Sprintf("%#x", n))
	}
	return strings.Join(w, ",")
}

func duration(d time.Duration) string {
	return fmt.Sprintf("%dus", max(d.Microseconds(), 1))
}
