// Package exit gives errors their exit codes and their last words: one line that says what
// to do next.
package exit
