// Package config defines the configuration file: its fields, their defaults and checks, and
// where in the file an error is. It builds nothing and knows no server.
//
// [Default] is the configuration without a file, and [Config.Read] reads a file over it. The
// reference in docs/configuration.md is generated from the structs here.
package config
