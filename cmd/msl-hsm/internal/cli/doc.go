// Package cli is the command line of msl-hsm: flags, printing and exit codes, and
// nothing else. A file is named after the noun and the verb that it implements, such as
// entity_add.go; root.go lists them all. The work of the verbs is done in the
// neighboring packages.
package cli
