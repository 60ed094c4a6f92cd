//! The integration tests: one binary, one folder a subject.
