//! The log files of kvlite.
