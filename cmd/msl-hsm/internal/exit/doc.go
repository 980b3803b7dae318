// Package exit maps errors to exit codes, and to messages of one line that end with
// what to do next.
package exit
