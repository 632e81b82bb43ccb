//! What a run prints while it works: lines on stderr, and on a terminal what it waits for.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::jiff::Timestamp;

/// Prints lines for a person.
pub(crate) struct Output {
    started: Instant,
    spinner: Option<ProgressBar>,
    warnings: RefCell<Vec<String>>,
}

impl Output {
    /// Starts the clock for the following lines.
    pub(crate) fn start() -> Self {
        let spinner = std::io::stderr().is_terminal().then(spinner);
        Self { started: Instant::now(), spinner, warnings: RefCell::default() }
    }

    /// Prints a line for an event.
    pub(crate) fn say(&self, text: &str) {
        let elapsed = format!("+{:.1}s", self.started.elapsed().as_secs_f64());
        self.line(&format!("{} {elapsed:>7}  {text}", Timestamp::now().strftime("%H:%M:%SZ")));
    }

    /// Prints a warning, and adds it to the JSON document.
    pub(crate) fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
        self.note(text);
    }

    /// Adds a warning to the JSON document only, because a printed line summarises it.
    pub(crate) fn note(&self, text: &str) {
        self.warnings.borrow_mut().push(clean(text));
    }

    /// All warnings, without repetitions.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    /// Shows on a terminal what the run waits for at this moment. Prints nothing elsewhere.
    pub(crate) fn show(&self, text: impl FnOnce() -> String) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(clean(&text()));
        }
    }

    /// Prints a line without a time.
    pub(crate) fn line(&self, text: &str) {
        let text = clean(text);
        let write = || drop(writeln!(std::io::stderr(), "{text}")); // a closed log must not stop the rollout
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// Removes what `show` shows on a terminal.
    pub(crate) fn stop(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Seconds with one decimal, as the document and the verdict give them.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// Makes text from a pod, a registry or an admission webhook safe for a terminal, on one line: control characters and those
/// that change the direction of text become visible.
pub(crate) fn clean(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            '\r' => {}
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                line.extend(c.escape_unicode());
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_the_cluster_wrote_can_forge_a_line_or_drive_a_terminal() {
        for (written, shown) in [
            ("plain", "plain"),
            ("two\nlines\r\n", "two lines"),
            ("a\ttab", "a tab"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
            ("ärger, 漢字", "ärger, 漢字"),
        ] {
            assert_eq!(clean(written), shown);
        }
    }
}
