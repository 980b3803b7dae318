package keystoretest

import "flag"

// A TB is what the suite uses of a *testing.T, except Run. Package testing is not
// imported, so that a program can run the suite and keep the flags of tests out.
type TB interface {
	Helper()
	Log(args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
	Skipf(format string, args ...any)
	Cleanup(f func())
}

// A Runner is a TB with subtests, like *testing.T.
type Runner[X any] interface {
	TB
	Run(name string, f func(t X)) bool
}

// A T is a test of the suite, whatever runs it.
type T interface {
	TB
	Run(name string, f func(t T)) bool
}

// tester makes a T of a Runner.
type tester[X Runner[X]] struct {
	TB
	own X
}

// Run runs a subtest.
func (t tester[X]) Run(name string, f func(t T)) bool {
	return t.own.Run(name, func(x X) { f(tester[X]{x, x}) })
}

// short reports whether go test was given -short.
func short() bool {
	f := flag.Lookup("test.short")
	return f != nil && f.Value.String() == "true"
}
