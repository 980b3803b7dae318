package msl_test

import "github.com/msl-hsm/msl-hsm/msl"

// Exposes returns nothing: a stand-in's keys are known to the test anyway.
func (stubExchange) Exposes() msl.Exposure { return msl.Exposure{} }
