//go:build !race

package msl

// RaceDetector tells whether the tests run with it.
const RaceDetector = false
