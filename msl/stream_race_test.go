//go:build race

package msl_test

const raceDetector = true
