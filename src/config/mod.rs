//! The configuration file: read, checked as a whole, every mistake reported at once.
