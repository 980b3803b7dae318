// Package cli is the command line of msl-hsm: flags, printing, exit codes, and nothing
// else. A file is named by the noun and the verb that it is for, as entity_add.go; root.go
// lists them all. What a verb does is in the packages beside this one.
package cli
