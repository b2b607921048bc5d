"""The startup trace, and telemetry: spans, counters and events, which go nowhere unless configuration says where."""
