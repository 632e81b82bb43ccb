//! The server's log: its start, its end, and what it refused.

/// Writes a line to standard error, the time first.
macro_rules! log {
    ($($words:tt)*) => {
        eprintln!("{:.0} {}", jiff::Timestamp::now(), format_args!($($words)*))
    };
}
pub(crate) use log;
