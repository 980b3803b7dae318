// Package exit maps errors to exit codes, and to one-line messages that end with what to
// do next.
package exit
