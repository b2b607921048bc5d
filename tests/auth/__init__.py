"""Tests of engine.auth."""
